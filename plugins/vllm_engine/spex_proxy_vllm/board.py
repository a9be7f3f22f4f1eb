"""The engine's load as it was after its last step, and how much of it is ours."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Board:
    """Written by the stat logger after every step and by the middleware, read by the route; all on the server's event
    loop."""

    engines: dict[int, dict[str, Any]] = field(default_factory=dict)
    own: int = 0
    """Masks that this server's routes have in the engine now."""
    production: tuple[int, int] | None = None
    """Requests in flight, and those of them that wait for their first byte, as the capture middleware counts them;
    None without it."""

    yields: bool = False
    """Whether this process sees all of production, and so can make room for it by itself (presence.py)."""

    def record(self, engine: int, running: int, waiting: int, kv_usage: float) -> None:
        step = self.engines.get(engine, {}).get("step", 0) + 1
        self.engines[engine] = {
            "engine": engine, "step": step, "running": running, "waiting": waiting, "kv_usage": kv_usage,
            "at": time.monotonic(),
        }  # fmt: skip

    def began(self) -> None:
        """A request of production."""
        self._count(1, 1)

    def answered(self) -> None:
        """The first byte of its answer went out."""
        self._count(0, -1)

    def ended(self, *, is_answered: bool) -> None:
        self._count(-1, 0 if is_answered else -1)

    def _count(self, in_flight: int, awaiting: int) -> None:
        flying, waiting = self.production or (0, 0)
        self.production = (flying + in_flight, waiting + awaiting)

    def read(self) -> dict[str, Any]:
        """For JSON. `age_s` is since the engine's last step: an idle engine takes none."""
        now = time.monotonic()
        engines = [
            {name: value for name, value in row.items() if name != "at"} | {"age_s": round(now - row["at"], 3)}
            for _, row in sorted(self.engines.items())
        ]
        told: dict[str, Any] = {"own": self.own, "engines": engines, "yields": self.yields}
        if self.production is not None:
            told["production"] = dict(zip(("in_flight", "awaiting_first"), self.production, strict=True))
        return told


BOARD = Board()
"""One for the process: vLLM makes the stat logger and the route apart, and tells neither of the other."""
