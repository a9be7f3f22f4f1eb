"""What explaining may cost the model server, and when."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time, timedelta

WINDOWS: Mapping[str, timedelta] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
"""Sliding windows: what was asked in the last minute, hour, day."""


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Prompt tokens that the server computed for us (those from its cache are free). None: no limit."""

    minute: int | None = None
    hour: int | None = None
    day: int | None = None

    @property
    def is_limited(self) -> bool:
        return (self.minute, self.hour, self.day) != (None, None, None)

    def over(self, spent: Mapping[str, int]) -> str | None:
        """Why nothing more may be asked now, or None. `spent` has the tokens of each window."""
        for window in WINDOWS:
            most = getattr(self, window)
            if most is not None and spent[window] >= most:
                return f"{spent[window]:,} tokens were asked in the last {window}, of a budget of {most:,}"
        return None


UNLIMITED = TokenBudget()

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Hours:
    """The part of the day (UTC) in which explaining may run; it may cross midnight."""

    begins: time
    ends: time

    def __contains__(self, moment: time) -> bool:
        if self.begins <= self.ends:
            return self.begins <= moment < self.ends
        return moment >= self.begins or moment < self.ends


def read_hours(text: str) -> Hours | None:
    """`22:00-06:00`; empty for no limit. Raises ValueError."""
    if not text.strip():
        return None
    found = _HOURS.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no part of a day; write it like 22:00-06:00 (UTC)")
    first, second, third, fourth = map(int, found.groups())
    return Hours(time(first, second), time(third, fourth))
