"""When the scripted engine was asked what: bench.yielding reads it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stamps:
    """When masked queries came and ended, for bench.yielding: (what, number of the query, monotonic seconds)."""

    hold_s: float = 0.0
    """How long a stream waits before the engine hears of it."""
    events: list[tuple[str, int, float]] = field(default_factory=list)
    _queries: int = 0

    @contextlib.contextmanager
    def query(self) -> Iterator[None]:
        self._queries += 1
        number, how = self._queries, "closed"
        self.events.append(("asked", number, time.monotonic()))
        try:
            yield
            how = "answered"
        finally:
            self.events.append((how, number, time.monotonic()))
