"""Interactions in lists, indices, comparisons, and what a sample says of all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spex_proxy.facts.explanation import Verdict
from spex_proxy.facts.records.documented import documented


@documented
@dataclass(frozen=True, slots=True)
class InteractionRow:
    """One term of an explanation in a list: a segment alone, or several that act together."""

    explanation_id: str
    exchange_id: str | None
    created_at: datetime
    """Of the explanation."""
    verdict: Verdict
    r2: float | None
    rank: int
    """From 1, the strongest term of its explanation."""
    segments: tuple[int, ...]
    """Their numbers."""
    origins: tuple[str, ...]
    """Where their texts come from: `system`, `user`, `tool`, `document`, ..."""
    effect: float | None
    """Banzhaf index."""
    fourier: float | None
    moebius: float | None
    standard_error: float | None


@documented
@dataclass(frozen=True, slots=True)
class InteractionPage:
    """One page of a list: the newest explanation first, its strongest term first."""

    items: tuple[InteractionRow, ...]
    next_cursor: str | None
    """Pass it as `cursor`, with the same filters, for the next page; null on the last one."""


@documented
@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One set of segments and what it is worth."""

    segments: tuple[int, ...]
    """Empty for the baseline."""
    value: float | None


@documented
@dataclass(frozen=True, slots=True)
class IndexRecord:
    """An index of cooperative game theory, made from the stored spectrum."""

    explanation_id: str
    index: str
    order: int
    n_segments: int
    sets: int
    """How many sets are not zero, the empty one included."""
    entries: tuple[IndexEntry, ...]
    """The largest first, at most as many as were asked for."""


@documented
@dataclass(frozen=True, slots=True)
class PairRecord:
    """A segment of the first explanation and its counterpart in the second."""

    first: int | None
    """Its number there; null if only the second has it."""
    second: int | None
    match: str | None
    """`range`, `text` or `overlap`: why they are taken for the same."""
    overlap: float
    """Share of the characters of either that both have."""
    first_text: str | None
    second_text: str | None
    first_effect: float | None
    second_effect: float | None
    change: float | None
    """Second less first."""


@documented
@dataclass(frozen=True, slots=True)
class TogetherRecord:
    """An interaction in one or both of two explanations."""

    segments: tuple[int, ...]
    """Numbers of the first; of the second, if only that has it."""
    first: float | None
    """Banzhaf index."""
    second: float | None


@documented
@dataclass(frozen=True, slots=True)
class ComparisonRecord:
    """Two explanations side by side."""

    first: str
    """Its id."""
    second: str
    same_players: bool
    """True if every segment has a counterpart of the same range or text."""
    rank_correlation: float | None
    """Spearman's, of the effects of pairs; null with fewer than three."""
    pairs: tuple[PairRecord, ...]
    shared: tuple[TogetherRecord, ...]
    """Interactions among the strongest of both."""
    lost: tuple[TogetherRecord, ...]
    """Only in the first."""
    gained: tuple[TogetherRecord, ...]
    """Only in the second."""
    notes: tuple[str, ...]
    """Read these first."""


@documented
@dataclass(frozen=True, slots=True)
class EstimateRecord:
    """Of all requests, from the sampled ones; null where there is nothing to estimate from."""

    value: float | None
    low: float | None
    """Lower end of the 95% interval."""
    high: float | None
    n: int
    """Explained requests that it is from."""


@documented
@dataclass(frozen=True, slots=True)
class ShareRecord:
    """The share of one kind."""

    name: str
    share: EstimateRecord


@documented
@dataclass(frozen=True, slots=True)
class SharesRecord:
    """What the explanations of a window, or of a group in it, say of all requests."""

    name: str
    """Of the group; empty for all."""
    requests: EstimateRecord
    """How many there were."""
    verdicts: tuple[ShareRecord, ...]
    r2: EstimateRecord
    """Mean out-of-fold R2, of those that have one."""
    origins: tuple[ShareRecord, ...]
    """Of those with a reliable explanation: how many depend on a text of this origin."""
    document: EstimateRecord | None
    """The same for the text that was asked for."""


@documented
@dataclass(frozen=True, slots=True)
class ShareCount:
    """Explanations that say nothing about all requests."""

    why: str
    n: int


@documented
@dataclass(frozen=True, slots=True)
class AggregateRecord:
    """A window of explanations, each weighed by the probability with which it came to be made."""

    explanations: int
    """In the window."""
    left_out: tuple[ShareCount, ...]
    capped_days: int
    """Rules and days in which a cap said no: there the sample is the first of each minute, no random one."""
    depth: int
    """An answer depends on a text if that stands in one of so many strongest terms of its explanation."""
    whole: SharesRecord
    groups: tuple[SharesRecord, ...]
    notes: tuple[str, ...]
    """What must be known before reading on."""
