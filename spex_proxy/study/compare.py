"""Two explanations side by side: which segments are the same, and what changed. Pure.

Segments are matched one to one, by the strongest claim that holds: the same range of the same exchange, else the
same text, else ranges of the same exchange that overlap (by their share of both). What has no counterpart is
told so, and counts for nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from spex_proxy.facts.exchange import Exchange, Segment
from spex_proxy.facts.explanation import Explanation, Interaction
from spex_proxy.facts.game import Game
from spex_proxy.study.view import SegmentView, View, make_view

Match = Literal["range", "text", "overlap"]
LEAST_OVERLAP = 0.5
"""Of all characters that either covers, so many must be of both."""
FEWEST_RANKED = 3
"""Pairs below which a rank correlation says nothing."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    explanation: Explanation
    view: View
    segments: tuple[Segment, ...]
    exchange: Exchange | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A segment of the first and its counterpart; one of them is None where there is none."""

    first: SegmentView | None
    second: SegmentView | None
    match: Match | None
    overlap: float
    """Characters of both over characters of either; 1 for the same range or text, 0 without a counterpart."""

    @property
    def change(self) -> float | None:
        """The second's effect less the first's, in the value's unit."""
        return None if self.first is None or self.second is None else self.second.effect - self.first.effect


@dataclass(frozen=True, slots=True)
class Together:
    """An interaction of two segments or more, told by the first's numbers, and by the second's if it is new."""

    numbers: tuple[int, ...]
    first: float | None
    """Its Banzhaf index there; None if it is not among the strongest terms."""
    second: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What can be said."""

    first: Side
    second: Side
    same_players: bool
    """Every segment of either has the same range, or the same text, in the other."""
    pairs: tuple[Pair, ...]
    """The largest change first, then those without a counterpart."""
    rank_correlation: float | None
    """Spearman's, of the effects of pairs; None with fewer than three, or if all are equal."""
    shared: tuple[Together, ...]
    """Interactions among the strongest of both."""
    lost: tuple[Together, ...]
    """Only in the first."""
    gained: tuple[Together, ...]
    """Only in the second, by its numbers."""
    notes: tuple[str, ...]
    """What must be known before reading on."""


def side(explanation: Explanation, game: Game, exchange: Exchange | None) -> Side:
    return Side(explanation, make_view(explanation, game, exchange), game.players.segments, exchange)


def compare(first: Side, second: Side) -> Comparison:
    """Differences are second less first."""
    pairs = list(_pairs(first, second))
    both = [pair for pair in pairs if pair.first and pair.second]
    counterpart = {p.first.number: p.second.number for p in both if p.first and p.second}
    shared, lost, gained = _interactions(first, second, counterpart)
    ordered = sorted(pairs, key=lambda pair: (pair.change is None, -abs(pair.change or 0.0)))
    return Comparison(
        first=first,
        second=second,
        same_players=bool(pairs) and all(pair.match in ("range", "text") for pair in pairs),
        pairs=tuple(ordered),
        rank_correlation=_spearman(both),
        shared=shared,
        lost=lost,
        gained=gained,
        notes=tuple(_notes(first, second, len(both), len(pairs))),
    )


def _pairs(first: Side, second: Side) -> Iterator[Pair]:
    taken: dict[int, tuple[int, Match, float]] = {}
    is_same = first.explanation.exchange_id is not None and (
        first.explanation.exchange_id == second.explanation.exchange_id
    )
    if is_same:
        _match(first, second, taken, "range", lambda s, n: (s.segments[n].message, *_span(s, n)))
    if first.exchange is not None and second.exchange is not None:
        _match(first, second, taken, "text", lambda s, n: " ".join(s.view.segments[n].text.split()))
    if is_same:
        _match_overlaps(first, second, taken)
    for number, view in enumerate(first.view.segments):
        other = taken.get(number)
        if other is None:
            yield Pair(view, None, None, 0.0)
        else:
            yield Pair(view, second.view.segments[other[0]], other[1], other[2])
    used = {other for other, _, _ in taken.values()}
    yield from (Pair(None, view, None, 0.0) for n, view in enumerate(second.view.segments) if n not in used)


def _match(
    first: Side, second: Side, taken: dict[int, tuple[int, Match, float]], match: Match,
    key: Callable[[Side, int], Hashable],
) -> None:  # fmt: skip
    """Equal keys in their order; an empty text is no key."""
    used, free = {other for other, _, _ in taken.values()}, defaultdict(list)
    for number in range(len(second.segments)):
        if number not in used:
            free[key(second, number)].append(number)
    for number in range(len(first.segments)):
        known = free.get(key(first, number))
        if number not in taken and known and key(first, number) != "":
            taken[number] = (known.pop(0), match, 1.0)


def _match_overlaps(first: Side, second: Side, taken: dict[int, tuple[int, Match, float]]) -> None:
    """The largest overlaps first; each segment once. Segments of a message are in order and disjoint."""
    used = {other for other, _, _ in taken.values()}
    found = []
    by_message = defaultdict(list)
    for other, segment in enumerate(second.segments):
        if other not in used:
            by_message[segment.message].append(other)
    for number, segment in enumerate(first.segments):
        if number in taken:
            continue
        for other in by_message[segment.message]:
            share = _overlap(_span(first, number), _span(second, other))
            if share >= LEAST_OVERLAP:
                found.append((share, number, other))
    for share, number, other in sorted(found, reverse=True):
        if number not in taken and other not in used:
            taken[number] = (other, "overlap", share)
            used.add(other)


def _span(one: Side, number: int) -> tuple[int, int]:
    segment = one.segments[number]
    return segment.char_start, segment.char_end


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> float:
    both = min(a[1], b[1]) - max(a[0], b[0])
    return max(0, both) / max(1, max(a[1], b[1]) - min(a[0], b[0]))


def _spearman(pairs: list[Pair]) -> float | None:
    effects = [(p.first.effect, p.second.effect) for p in pairs if p.first and p.second]
    if len(effects) < FEWEST_RANKED:
        return None
    ranks = [rankdata(column) for column in zip(*effects, strict=True)]
    if any(np.ptp(rank) == 0.0 for rank in ranks):
        return None
    value = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    return value if math.isfinite(value) else None


def _interactions(
    first: Side, second: Side, counterpart: dict[int, int]
) -> tuple[tuple[Together, ...], tuple[Together, ...], tuple[Together, ...]]:
    def numbers(interaction: Interaction) -> tuple[int, ...]:
        return tuple(player + 1 for player in interaction.players)

    mine = {numbers(i): i.banzhaf for i in first.explanation.interactions if i.order > 1}
    theirs = {numbers(i): i.banzhaf for i in second.explanation.interactions if i.order > 1}
    shared, lost, met = [], [], set()
    for group, effect in mine.items():
        moved = tuple(sorted(counterpart[n] for n in group)) if all(n in counterpart for n in group) else None
        if moved in theirs:
            met.add(moved)
            shared.append(Together(group, effect, theirs[moved]))
        else:
            lost.append(Together(group, effect, None))
    gained = tuple(Together(group, None, effect) for group, effect in theirs.items() if group not in met)
    return tuple(shared), tuple(lost), gained


def _notes(first: Side, second: Side, matched: int, all_: int) -> Iterator[str]:
    for name, one in (("first", first), ("second", second)):
        if one.explanation.verdict != "reliable":
            yield f"The {name} is {one.view.badge}: its effects should not be believed."
        if one.exchange is None:
            yield f"The {name}’s texts were erased: its segments can be told by their ranges only."
    if first.explanation.exchange_id != second.explanation.exchange_id:
        yield "They explain different answers: effects are of each one’s own, and their sizes say little together."
    elif first.explanation.target != second.explanation.target:
        yield "They explain different parts of an answer, so that sizes of effects can’t be compared directly."
    if matched < all_:
        yield f"{matched} of {all_} segments have a counterpart."
