"""How fast to ask beside running streams: more while nobody feels it, half as soon as somebody does. Pure.

AIMD on uncached prompt tokens a second (Chiu and Jain, 1989: additive increase and multiplicative decrease is the
stable and fair one). What is felt is the gap between two pieces of production's streams: its 95th percentile in a
window with our work against windows without, which are taken in between, so that a slow hour is not blamed on us.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from spex_proxy.facts.load import Gaps

LEAST, FIRST, MOST = 50.0, 500.0, 200_000.0
"""Tokens a second."""
STEP = 1.25
"""What a good window adds is a quarter of the first rate for as long as that is more than 2%."""
CUT = 0.5
FELT = 1.10
"""The 95th percentile with our work over that without it, from which on we are felt."""
ENOUGH = 20
"""Gaps in a window that tell something."""
WINDOW_S, LONGEST_WINDOW_S = 1.0, 30.0
"""A window lasts until it has enough gaps, within these bounds."""
OFF_EVERY = 8
"""Of so many windows one is without our work."""
MEMORY = 0.3
"""Weight of the newest window without our work."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What has been learnt so far."""

    rate: float = FIRST
    """Uncached prompt tokens a second."""
    calm_s: float = math.nan
    """95th percentile of production's gaps without our work, in seconds; NaN while unknown."""
    windows: int = 0
    is_blind: bool = False
    """Whether not even the longest window had enough gaps: production does not stream, or hardly."""

    @property
    def is_off(self) -> bool:
        """Whether this window is one without our work."""
        return self.windows % OFF_EVERY == 0 or (math.isnan(self.calm_s) and not self.is_blind)

    @property
    def tokens_s(self) -> float:
        """In windows with our work. Where nobody knows how production does without it, the least."""
        return LEAST if math.isnan(self.calm_s) else self.rate

    def after(self, gaps: Gaps, asked: int) -> Pace:
        """What a window teaches: production's gaps in it, and how many questions of ours ran in it."""
        after = replace(self, windows=self.windows + 1, is_blind=gaps.total < ENOUGH)
        if after.is_blind:
            return after
        felt = gaps.quantile(0.95)
        if not asked:
            known = felt if math.isnan(self.calm_s) else (1 - MEMORY) * self.calm_s + MEMORY * felt
            return replace(after, calm_s=known)
        if math.isnan(self.calm_s):
            return after
        if felt > FELT * self.calm_s:
            return replace(after, rate=max(LEAST, self.rate * CUT))
        return replace(after, rate=min(MOST, self.rate + max(FIRST * (STEP - 1), 0.02 * self.rate)))


@dataclass(frozen=True, slots=True)
class Batch:
    """How many questions go in one call: what is aborted in the middle is lost whole."""

    size: int
    most: int

    def aborted(self, questions: int) -> Batch:
        """So many questions were too many."""
        return replace(self, size=max(1, questions // 2))

    def answered(self) -> Batch:
        return replace(self, size=min(self.most, self.size + 1))
