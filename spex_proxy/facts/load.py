"""What production is doing right now, as counts: what the gate decides upon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

FIRST_BUCKET_S = 0.000_25
PER_OCTAVE = 6
BUCKETS = 64
"""Gaps between pieces of a stream, in buckets that grow by an eighth: a quarter of a millisecond to 0.4 s."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """How long clients waited between two pieces of a stream, counted since the relay began."""

    counts: tuple[int, ...] = (0,) * BUCKETS

    @property
    def total(self) -> int:
        return sum(self.counts)

    def since(self, earlier: Gaps) -> Gaps:
        """What came after an earlier reading. A relay that began anew counts from zero again."""
        return Gaps(tuple(max(0, now - then) for now, then in zip(self.counts, earlier.counts, strict=True)))

    def quantile(self, q: float) -> float:
        """In seconds, interpolated within the bucket; NaN where nothing was counted."""
        left = q * self.total
        if not self.total:
            return math.nan
        for number, count in enumerate(self.counts):
            if count and left <= count:
                return FIRST_BUCKET_S * 2 ** ((number + left / count) / PER_OCTAVE)
            left -= count
        return FIRST_BUCKET_S * 2 ** (BUCKETS / PER_OCTAVE)


def bucket_of(gap_s: float) -> int:
    """Which bucket a gap is counted in; the first and the last are open."""
    if gap_s <= FIRST_BUCKET_S:
        return 0
    return min(BUCKETS - 1, int(math.log2(gap_s / FIRST_BUCKET_S) * PER_OCTAVE))


@dataclass(frozen=True, slots=True)
class Production:
    """One reading of what all relays know together."""

    in_flight: int
    """Requests that have arrived and whose answer has not ended."""
    awaiting_first: int
    """Those of them that have had no byte of their answer's body."""
    arrivals: int
    """Requests that ever arrived."""
    gaps: Gaps = field(default_factory=Gaps)


def together(readings: Sequence[Production]) -> Production:
    """Several relays as one."""
    return Production(
        in_flight=sum(one.in_flight for one in readings),
        awaiting_first=sum(one.awaiting_first for one in readings),
        arrivals=sum(one.arrivals for one in readings),
        gaps=Gaps(tuple(map(sum, zip(*(one.gaps.counts for one in readings), strict=True))) or (0,) * BUCKETS),
    )


@dataclass(frozen=True, slots=True)
class Unseen:
    """Nobody can say what production is doing, and why."""

    why: str
