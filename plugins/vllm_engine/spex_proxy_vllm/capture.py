"""Capture without a hop: vLLM's `--middleware` that hands what has passed to spex_proxy.

It stands outside all of vLLM's own middleware, its authentication too, so it keeps nothing but what was answered 200.
Which requests are kept and explained is decided by spex_proxy, by the same rules as behind its relay. Production never
waits for it: each piece goes on first, then into a list of what was seen; a fault of ours ends the watching, not the
request.

    SPEX_HANDOVER_KEY=... SPEX_HANDOVER_URL=http://127.0.0.1:8081 \\
        vllm serve ... --middleware spex_proxy_vllm.capture.Capture
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime, timezone
from typing import Any

from spex_proxy_vllm.board import BOARD, Board
from spex_proxy_vllm.handing import PATHS, Finished
from spex_proxy_vllm.presence import BACKGROUND, path_of
from spex_proxy_vllm.sender import Sender, Way, connection

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

CLOSE_S = 3.0
"""For what waits when the server stops."""
_LOG = logging.getLogger("spex_proxy_vllm")


class Capture:
    """Pure ASGI. Without a key, or with an address that is none, everything passes and nothing is seen."""

    def __init__(self, app: App, sender: Sender | None = None, board: Board = BOARD) -> None:
        self._app = app
        self._sender = sender or _made()
        self._board = board
        board.production = None if self._sender is None else (0, 0)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        if (seen := self._watch(scope)) is None:
            await self._app(scope, receive, send)
            return

        async def hear() -> Message:
            message = await receive()
            seen.contained(seen.heard, message)
            return message

        async def say(message: Message) -> None:
            await send(message)
            seen.contained(seen.said, message)

        try:
            await self._app(scope, hear, say)
        finally:
            seen.contained(seen.over)

    def _watch(self, scope: MutableMapping[str, Any]) -> Seen | None:
        if self._sender is None or scope["type"] != "http" or scope["method"] != "POST" or path_of(scope) not in PATHS:
            return None
        marks = [value for name, value in scope["headers"] if name == BACKGROUND]
        if marks and hmac.compare_digest(marks[0], self._sender.way.key.encode()):
            return None
        return Seen(scope, self._sender, self._board)

    async def _live(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        async def say(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown") and self._sender is not None:
                await asyncio.to_thread(self._sender.close, CLOSE_S)  # after this the process may end
            await send(message)

        await self._app(scope, receive, say)


class Seen:
    """One request, from its head to the end of its answer. Counted on the board as production meanwhile."""

    def __init__(self, scope: MutableMapping[str, Any], sender: Sender, board: Board) -> None:
        self._scope = scope
        self._sender = sender
        self._board = board
        self._id = new_id()
        self._received_at = datetime.now(timezone.utc)  # noqa: UP017 - vLLM runs on Python 3.10 too
        self._began = time.monotonic()
        self._first_byte_s: float | None = None
        self._request: list[bytes] = []
        self._answer: list[bytes] = []
        self._held = 0
        self._status = 0
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._is_gone = self._is_over = self._is_dropped = False
        self._board.began()

    def contained(self, step: Callable[..., None], *arguments: Message) -> None:
        """Whatever we have broken, production goes on."""
        try:
            step(*arguments)
        except Exception:  # noqa: BLE001 - see above
            _LOG.exception("watching failed; the request goes on unwatched")
            self._drop("fault")

    def heard(self, message: Message) -> None:
        """From the client."""
        if message["type"] == "http.request":
            self._keep(self._request, message.get("body", b""))
        elif message["type"] == "http.disconnect":
            self._is_gone = True

    def said(self, message: Message) -> None:
        """To the client, after it was sent."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = tuple(message.get("headers", ()))
            if self._status != 200:
                self._drop(None)
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            if body and self._first_byte_s is None:
                self._first_byte_s = time.monotonic() - self._began
                self._board.answered()
            self._keep(self._answer, body)
            if not message.get("more_body", False):
                self._end("client_gone" if self._is_gone else "complete")

    def over(self) -> None:
        """The application has returned, or has failed."""
        self._end("client_gone" if self._is_gone else "upstream_broken")

    def _keep(self, pieces: list[bytes], piece: bytes) -> None:
        if self._is_dropped or self._is_over or not piece:
            return
        if self._held + len(piece) > self._sender.way.most_of_one:
            self._drop("too_large")
        elif not self._sender.take(len(piece)):
            self._drop("memory_full")
        else:
            self._held += len(piece)
            pieces.append(bytes(piece))

    def _drop(self, reason: str | None) -> None:
        """Let go of it; None: it is no loss."""
        if self._is_dropped or self._is_over:
            return
        self._is_dropped = True
        self._sender.give_back(self._held)
        self._held = 0
        self._request.clear()
        self._answer.clear()
        if reason is not None:
            self._sender.lose(reason)

    def _end(self, ending: str) -> None:
        if self._is_over:
            return
        if self._status != 200:
            self._drop(None)
        self._is_over = True
        self._board.ended(is_answered=self._first_byte_s is not None)
        if self._is_dropped:
            return
        took = time.monotonic() - self._began
        first = took if self._first_byte_s is None else self._first_byte_s
        self._sender.offer(
            Finished(
                self._id, self._scope["method"], path_of(self._scope), self._received_at.isoformat(),
                tuple(self._scope["headers"]), self._status, self._headers, first, took, ending,
                b"".join(self._request), b"".join(self._answer),
            )
        )  # fmt: skip


def new_id() -> str:
    """A UUIDv7 (RFC 9562): milliseconds, then random bits. So a hand-over that is repeated is stored once."""
    bits = int.from_bytes(os.urandom(10), "big")
    return _spelt(
        time.time_ns() // 1_000_000 << 80 | 0x7 << 76 | (bits >> 68) << 64 | 0b10 << 62 | bits & (1 << 62) - 1
    )


def _spelt(number: int) -> str:
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _made() -> Sender | None:
    way = Way.of(os.environ)
    if way is None:
        _LOG.error("SPEX_HANDOVER_KEY is not set: nothing is captured, everything is served")
        return None
    try:
        connection(way.url).close()
    except ValueError as error:
        _LOG.error("nothing is captured, everything is served: %s", error)
        return None
    return Sender(way)
