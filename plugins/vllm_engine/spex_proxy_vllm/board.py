"""The engine's load as it was after its last step, and how much of it is ours."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Board:
    """Written by the stat logger after every step, read by the route; both run on the server's event loop."""

    engines: dict[int, dict[str, Any]] = field(default_factory=dict)
    own: int = 0
    """Masks that this server's routes have in the engine now."""

    def record(self, engine: int, running: int, waiting: int, kv_usage: float) -> None:
        step = self.engines.get(engine, {}).get("step", 0) + 1
        self.engines[engine] = {
            "engine": engine, "step": step, "running": running, "waiting": waiting, "kv_usage": kv_usage,
            "at": time.monotonic(),
        }  # fmt: skip

    def read(self) -> dict[str, Any]:
        """For JSON. `age_s` is since the engine's last step: an idle engine takes none."""
        now = time.monotonic()
        engines = [
            {name: value for name, value in row.items() if name != "at"} | {"age_s": round(now - row["at"], 3)}
            for _, row in sorted(self.engines.items())
        ]
        return {"own": self.own, "engines": engines}


BOARD = Board()
"""One for the process: vLLM makes the stat logger and the route apart, and tells neither of the other."""
