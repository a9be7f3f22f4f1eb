"""What `doctor` says about one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "broken", "unknown"]
"""`broken`: production or explanations do not work. `warning`: they work, and something should be mended.
`unknown`: it can't be known from here."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `advice` says what to do; empty only where the level is `ok`."""

    name: str
    level: Level
    found: str
    advice: str = ""
