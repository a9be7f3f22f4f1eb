"""Whether production is in this server now: seen as its requests come and go, so that masked queries make room at once.

Of one server process (`--api-server-count` 1) and its event loop. A request of production is whatever a client posts
that makes the engine generate: from its head on, to the last byte of its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

_OURS = "/v1/spex/"
_WORDS_ONLY = ("/tokenize", "/detokenize", "/render")
"""Ends of paths that no engine works for: workers of ours ask them before they mask anything."""


class Presence:
    """How many requests of production are here, and a way to wait for the change."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._here, self._gone = asyncio.Event(), asyncio.Event()
        self._gone.set()

    @property
    def is_here(self) -> bool:
        return self._in_flight > 0

    def came(self) -> None:
        self._in_flight += 1
        self._here.set()
        self._gone.clear()

    def went(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._here.clear()
            self._gone.set()

    async def here(self) -> None:
        """Until a request is here."""
        await self._here.wait()

    async def gone(self) -> None:
        """Until none is here."""
        await self._gone.wait()


PRESENCE = Presence()
"""One for the process, as there is one application."""


class Watch:
    """ASGI middleware that counts; what passes is not touched."""

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not is_production(scope):
            await self._app(scope, receive, send)
            return
        PRESENCE.came()
        try:
            await self._app(scope, receive, send)
        finally:
            PRESENCE.went()


def is_production(scope: Any) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    path: str = scope["path"]
    return not path.startswith(_OURS) and not path.endswith(_WORDS_ONLY)
