"""Whether production is in this server now: seen as its requests come and go, so that masked queries make room at once.

Of one server process (`--api-server-count` 1) and its event loop. A request of production is whatever a client posts
that makes the engine generate: from its head on, to the last byte of its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

_OURS = "/v1/spex/"
BACKGROUND = b"x-spex-background"
"""Header of what spex_proxy's own background work asks by vLLM's ordinary routes. Who else sends it loses nothing but
the room that would have been made for it."""
_WORDS_ONLY = ("/tokenize", "/detokenize", "/render")
"""Ends of paths that no engine works for: workers of ours ask them before they mask anything."""

REMEMBERED = 32
"""Arrivals of production, and half as many masked queries, that are looked back on."""
REGULAR = 1.5
"""Arrivals have a rhythm if a long interval (the 90th percentile) is at most so many times a short one (the 10th)."""
TRIES = 8
"""Masked queries lost in a row, after which none is begun in pauses that none seems to fit into."""
LATE = 1.25
"""A request that did not come within so many of the longest interval, or of REGULAR long ones, is given up."""


class Presence:
    """How many requests of production are here, a way to wait for the change, and the rhythm of it.

    A step that has begun runs to its end, so a request that comes in the middle of a masked query waits for it. Where
    production comes at regular intervals, a query that would not end before the next is due is not begun.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._here, self._gone = asyncio.Event(), asyncio.Event()
        self._gone.set()
        self._came_at: float | None = None
        self._intervals: deque[float] = deque(maxlen=REMEMBERED)
        """From one coming, to a server that had nobody, to the next."""
        self._stays: deque[float] = deque(maxlen=REMEMBERED)
        """From that coming until nobody is here."""
        self._took: deque[float] = deque(maxlen=REMEMBERED // 2)
        self._lost = 0
        """Masked queries that production ended since one was answered."""

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def is_here(self) -> bool:
        return self._in_flight > 0

    def came(self) -> None:
        self._in_flight += 1
        if self._in_flight > 1:
            return
        now = self._clock()
        if self._came_at is not None:
            self._intervals.append(now - self._came_at)
        self._came_at = now
        self._here.set()
        self._gone.clear()

    def went(self) -> None:
        self._in_flight -= 1
        if self._in_flight:
            return
        if self._came_at is not None:
            self._stays.append(self._clock() - self._came_at)
        self._here.clear()
        self._gone.set()

    async def here(self) -> None:
        """Until a request is here."""
        await self._here.wait()

    async def gone(self) -> None:
        """Until none is here."""
        await self._gone.wait()

    def took(self, seconds: float) -> None:
        """One masked query, from its beginning to its answer."""
        self._took.append(seconds)
        self._lost = 0

    def lost(self) -> None:
        """One masked query was ended for production's sake."""
        self._lost += 1

    def wait_s(self) -> float:
        """In a pause: how long to wait before the next masked query. 0: it ends before production is due, or nobody
        can tell when that is, or production is late, or none seems to fit into any pause and that was not tried yet."""
        if len(self._intervals) < REMEMBERED // 2 or not self._took or self._came_at is None:
            return 0.0
        ordered, tenth = sorted(self._intervals), len(self._intervals) // 10
        short, long, longest = ordered[tenth], ordered[-1 - tenth], ordered[-1]
        needed, age = max(self._took), self._clock() - self._came_at
        is_regular, fits_ever = long <= REGULAR * short, sorted(self._stays)[tenth] + needed <= short
        if not is_regular or age + needed <= short or (not fits_ever and self._lost < TRIES):
            return 0.0
        return max(0.0, LATE * min(longest, REGULAR * long) - age)


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
    path = path_of(scope)
    if path.startswith(_OURS) or path.endswith(_WORDS_ONLY):
        return False
    return all(name != BACKGROUND for name, _ in scope["headers"])


def path_of(scope: Any) -> str:
    """As the routes know it: behind a proxy that does not strip its prefix, it begins with `--root-path`."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
