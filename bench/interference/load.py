"""Production: streams that begin at a steady rate, whatever became of those before; when each token came is noted."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

_TOKEN = re.compile(rb'"content": ?"[^"]')
_LAST_CHUNK = b"0\r\n\r\n"
DRAIN_S = 60.0


@dataclass(slots=True)
class Window:
    """What production saw; in seconds."""

    first: list[float] = field(default_factory=list)
    """From a request's sending to its first token."""
    gaps: list[float] = field(default_factory=list)
    """Between two pieces of a stream that had tokens in them."""
    whole: list[float] = field(default_factory=list)
    """From a request's sending to the end of its answer."""
    errors: list[str] = field(default_factory=list)
    busy: float = 0.0
    """How long at least one stream was in flight."""


def request(port: int, model: str, prompt: str, tokens: int, *, stream: bool, headers: str = "") -> bytes:
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": stream}
    body = json.dumps(asked | {"max_tokens": tokens, "temperature": 0}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"{headers}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Line(asyncio.Protocol):
    """One connection, one stream at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._sent_at = self._last = 0.0
        self._tail = b""
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._is_busy, self._last, self._tail = True, 0.0, b""
        self._sent_at = time.perf_counter()
        self._transport.write(data)

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def close(self) -> None:
        self._is_busy = False
        self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if self._is_busy:
            self._load.ended(self, "the connection was closed")

    def data_received(self, data: bytes) -> None:
        now, seen = time.perf_counter(), self._load.seen
        if not self._tail and not data.startswith(b"HTTP/1.1 200"):
            self._load.ended(self, data[:120].decode("latin-1"))
            return
        if _TOKEN.search(data):
            if self._last:
                seen.gaps.append(now - self._last)
            else:
                seen.first.append(now - self._sent_at)
            self._last = now
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        if self._last and self._tail == _LAST_CHUNK:  # a head may end like a last chunk: with a 0
            seen.whole.append(now - self._sent_at)
            self._load.ended(self)


class Load:
    """All production of a bench. `run` a window, then read `seen`."""

    def __init__(self, port: int, model: str, prompt: str, tokens: int, burst: int = 1) -> None:
        """`burst` streams begin together."""
        self._port = port
        self._burst = burst
        self._busy_since = 0.0
        self._request = request(port, model, prompt, tokens, stream=True)
        self._free: deque[Line] = deque()
        self._running: set[Line] = set()
        self._quiet = asyncio.Event()
        self.seen = Window()

    async def run(self, rate: float, seconds: float) -> Window:
        """Begin `rate` streams a second; wait for the last to end."""
        self.seen = Window()
        begun, number = time.perf_counter(), 0
        while (due := number / rate) < seconds:
            if (wait := begun + due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            await self.one()
            number += self._burst
        await self.drained()
        return self.seen

    async def one(self) -> None:
        """One burst."""
        for _ in range(self._burst):
            await self._one()

    async def _one(self) -> None:
        if not self._running:
            self._busy_since = time.perf_counter()
        while self._free and not self._free[0].is_open:  # the relay closes what is idle for long
            self._free.popleft()
        if self._free:
            line = self._free.popleft()
        else:
            loop = asyncio.get_running_loop()
            _, line = await loop.create_connection(lambda: Line(self), "127.0.0.1", self._port)
        self._running.add(line)
        self._quiet.clear()
        line.send(self._request)

    async def drained(self) -> None:
        if self._running:
            async with asyncio.timeout(DRAIN_S):
                await self._quiet.wait()

    def ended(self, line: Line, error: str = "") -> None:
        self._running.discard(line)
        if error:
            self.seen.errors.append(error)
            line.close()
        else:
            self._free.append(line)
        if not self._running:
            self.seen.busy += time.perf_counter() - self._busy_since
            self._quiet.set()

    def close(self) -> None:
        for line in (*self._free, *self._running):
            line.close()
