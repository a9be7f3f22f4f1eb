"""A job's progress as server-sent events: `progress` on every change, `end` when it is over.

An ASGI response of its own rather than a generator handed to a framework: it sees a client that is
gone at once, gives its place back whatever happens, and ends when the server wants to end.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Response
from starlette.types import Receive, Scope, Send

from spex_proxy.web.errors import error_response

POLL_S = 0.5
"""Between looks at the store: one indexed read each."""
HEARTBEAT_S = 15.0
"""Longest silence: proxies cut what is silent for a minute."""
LONGEST_S = 3600.0
"""A stream ends then, without `end`; an EventSource comes back by itself."""
MOST_STREAMS = 64
"""At once, in one process: each is a connection and two reads a second."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a job gave."""

    data: str
    """JSON, for people's browsers and for `spex_proxy.client`."""
    is_over: bool


class Places:
    """How many streams may be open at once. Used on one event loop only."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._free = most

    @property
    def is_full(self) -> bool:
        return self._free <= 0

    def take(self) -> None:
        self._free -= 1

    def give_back(self) -> None:
        self._free += 1


class EventStream(Response):
    """Follows one job until it is over, the client is gone, or the server stops."""

    media_type = "text/event-stream"

    def __init__(
        self,
        look: Callable[[], Look],
        places: Places,
        is_stopping: Callable[[], bool],
        *,
        poll_s: float = POLL_S,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._look, self._places, self._is_stopping = look, places, is_stopping
        self._poll_s, self._heartbeat_s = poll_s, heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._places.is_full:
            message = "too many event streams are open: try later, or ask for the job itself"
            await error_response(429, "too_many_streams", message)(scope, receive, send)
            return
        self._places.take()
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._follow(gone, send)
            await send({"type": "http.response.body", "body": b""})
        except OSError:
            pass  # the client is gone: how some servers say so
        finally:
            gone.cancel()
            self._places.give_back()

    async def _follow(self, gone: asyncio.Task[None], send: Send) -> None:
        last, spoke_at, deadline = None, time.monotonic(), time.monotonic() + LONGEST_S
        while not gone.done() and not self._is_stopping() and time.monotonic() < deadline:
            chunk, now, is_over = b"", await self._seen(), False
            if now is None:
                chunk = b": the store can't be read now\n\n" if last is not None else b""
                last = None
            elif now.is_over:
                chunk, is_over = event("end", now.data), True
            elif now.data != last:
                chunk, last = event("progress", now.data), now.data
            if not chunk and time.monotonic() - spoke_at >= self._heartbeat_s:
                chunk = b": still there\n\n"
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                spoke_at = time.monotonic()
            if is_over:
                return
            await asyncio.wait({gone}, timeout=self._poll_s)

    async def _seen(self) -> Look | None:
        """None while the store can't be read: the stream outlives a store that is restarted."""
        try:
            return await asyncio.to_thread(self._look)
        except Exception:  # noqa: BLE001  whatever fails here, fails again, or heals, at the next look
            return None


def event(name: str, data: str) -> bytes:
    """One event. `data` is one line of JSON, hence free of line ends."""
    return f"event: {name}\ndata: {data}\n\n".encode()


def one_line(value: object) -> str:
    """JSON in one line of ASCII: no reader, however it splits lines, can tear it."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
