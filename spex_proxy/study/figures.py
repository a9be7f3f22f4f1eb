"""The geometry of the figures: arcs, bars, scales, steps of colour. Numbers in, numbers out. Pure.

Nothing here knows HTML; colours are numbered steps which the style sheet paints, so that light, dark,
print and muted palettes need no second drawing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

STEPS = 6
"""Steps of colour on each side of zero: as many as an eye tells apart in running text."""
FAINTEST = 0.06
"""Effects under this share of the largest are left uncoloured: most of them are noise."""

MARGIN = 14.0
NODE_SPACE = 150.0
"""Distance of two nodes where there is room for it."""
STRIP_WIDTH = 1100.0
NUMBERED = 15.0
"""Nodes that stand closer than this carry no number."""
ARC_HEIGHT = 104.0
"""Of the arc from the first node to the last."""
LOWEST_ARC = 22.0
STACKED = 10.0
"""How much higher a second arc between the same two nodes is."""
THICKEST = 6.0
THINNEST = 1.25
BRACKET = 30.0
"""Room below the nodes for the names of the messages."""
CHARACTER = 6.4
"""Width of a character of a bracket's name."""


@dataclass(frozen=True, slots=True)
class Node:
    """A player on the strip."""

    number: int
    x: float
    radius: float
    step: int
    is_numbered: bool


@dataclass(frozen=True, slots=True)
class Arc:
    """Two neighbours in a group that acts together; a group of three has two arcs."""

    rank: int
    """Of the interaction, from 0."""
    path: str
    width: float
    is_positive: bool


@dataclass(frozen=True, slots=True)
class Bracket:
    """A message's stretch of the strip."""

    start: float
    end: float
    name: str
    """Empty where there is no room for it."""
    title: str


@dataclass(frozen=True, slots=True)
class Strip:
    """The prompt as a row of nodes, with arcs above and messages below."""

    width: float
    height: float
    baseline: float
    nodes: tuple[Node, ...]
    arcs: tuple[Arc, ...]
    brackets: tuple[Bracket, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """An effect as a bar from the zero line, with a whisker for its error. In percent of the width."""

    start: float
    length: float
    zero: float
    whisker: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Gauge:
    """R2 between 0 and 1: the point, its interval, and two marks. In percent of the width."""

    point: float | None
    low: float | None
    high: float | None
    threshold: float
    ceiling: float | None


def step_of(strength: float) -> int:
    """-6..6: which step of colour an effect of this share (-1..1) of the largest has; 0 is no colour."""
    if not abs(strength) >= FAINTEST:  # NaN is uncoloured too
        return 0
    size = min(1.0, abs(strength))
    return int(math.copysign(max(1, math.ceil(size * STEPS - 1e-9)), strength))


def make_strip(
    strengths: Sequence[float],
    groups: Sequence[tuple[int, Sequence[int], float]],
    messages: Sequence[tuple[str, int, int]],
) -> Strip:
    """`groups`: (rank, players from 0, strength in -1..1). `messages`: (name, first player, last player)."""
    n = len(strengths)
    space = min(NODE_SPACE, (STRIP_WIDTH - 2 * MARGIN) / max(1, n))
    radius = max(1.0, min(11.0, space * 0.42))
    arcs = _stacked(groups, n)
    top = max((height for *_, height in arcs), default=0.0) + THICKEST
    baseline = top + radius + 2
    xs = [MARGIN + space * (i + 0.5) for i in range(n)]
    nodes = tuple(
        Node(i + 1, _r(xs[i]), _r(radius), step_of(strength), space >= NUMBERED) for i, strength in enumerate(strengths)
    )
    drawn = tuple(
        Arc(rank, arc_path(xs[a], xs[b], baseline - radius - 1, height), arc_width(strength), strength > 0)
        for rank, a, b, strength, height in arcs
    )
    brackets = tuple(_bracket(name, xs[first] - radius, xs[last] + radius) for name, first, last in messages)
    width = 2 * MARGIN + space * max(1, n)
    return Strip(_r(width), _r(baseline + radius + BRACKET), _r(baseline), nodes, drawn, brackets)


def arc_height(distance: int, n: int) -> float:
    """Higher for what stands further apart, so that nested arcs do not touch."""
    share = math.sqrt(max(0, distance - 1) / max(1, n - 2))
    return LOWEST_ARC + (ARC_HEIGHT - LOWEST_ARC) * min(1.0, share)


def arc_width(strength: float) -> float:
    """Thickness by the size of an effect in -1..1."""
    size = min(1.0, abs(strength)) if strength == strength else 0.0
    return _r(THINNEST + (THICKEST - THINNEST) * size)


def arc_path(start: float, end: float, baseline: float, height: float) -> str:
    """An SVG path from `start` to `end`, bulging to `height` above the baseline (a cubic, flat on top)."""
    lift = baseline - height * 4 / 3
    inset = (end - start) * 0.12
    return (
        f"M{_r(start):g} {_r(baseline):g}"
        f"C{_r(start + inset):g} {_r(lift):g} {_r(end - inset):g} {_r(lift):g} {_r(end):g} {_r(baseline):g}"
    )


def make_bars(effects: Sequence[float], error: float | None = None) -> tuple[Bar, ...]:
    """Bars on one common scale that holds zero, every effect, and the whiskers as far as they go."""
    finite = [effect for effect in effects if math.isfinite(effect)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    reach = error if error is not None and math.isfinite(error) else 0.0
    room = 0.06 * (high - low) or 1.0
    low, high = low - min(reach, room) * (low < 0), high + min(reach, room) * (high > 0)
    scale = 100.0 / ((high - low) or 1.0)

    def at(value: float) -> float:
        return _r(min(100.0, max(0.0, (value - low) * scale)))

    return tuple(
        Bar(
            start=at(min(0.0, effect)),
            length=_r(at(max(0.0, effect)) - at(min(0.0, effect))),
            zero=at(0.0),
            whisker=(at(effect - reach), at(effect + reach)) if reach else None,
        )
        for effect in (e if math.isfinite(e) else 0.0 for e in effects)
    )


def make_gauge(r2: float, low: float, high: float, threshold: float, ceiling: float) -> Gauge:
    """What is not finite is left out; what lies outside of 0..1 stands at the end."""
    return Gauge(_percent(r2), _percent(low), _percent(high), 100 * threshold, _percent(ceiling))


def _stacked(groups: Sequence[tuple[int, Sequence[int], float]], n: int) -> list[tuple[int, int, int, float, float]]:
    """(rank, player, player, strength, height) of each arc; arcs between the same two stand above each other."""
    seen: Counter[tuple[int, int]] = Counter()
    arcs = []
    for rank, players, strength in groups:
        for a, b in pairwise(sorted(players)):
            arcs.append((rank, a, b, strength, arc_height(b - a, n) + STACKED * seen[a, b]))
            seen[a, b] += 1
    return arcs


def _bracket(name: str, start: float, end: float) -> Bracket:
    fits = int((end - start) / CHARACTER)
    shown = name if len(name) <= fits else name[: fits - 1] + "…" if fits >= 4 else ""
    return Bracket(_r(start), _r(end), shown, name)


def _percent(value: float) -> float | None:
    return _r(100 * min(1.0, max(0.0, value))) if math.isfinite(value) else None


def _r(value: float) -> float:
    """Two decimals: a hundredth of a pixel, and pages that do not differ between machines."""
    return round(value, 2) + 0.0
