"""Explanations, the evidence they follow from, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spex_proxy.facts.explanation import Verdict
from spex_proxy.facts.records.documented import documented


@documented
@dataclass(frozen=True, slots=True)
class FlagRecord:
    """Something that a person should look at."""

    name: str
    detail: str
    score: float | None = None
    flagger: str = ""
    """Who raised it: the name of a plugin; `verdict` or `target` for what every explanation says of itself."""


@documented
@dataclass(frozen=True, slots=True)
class ExplanationRow:
    """One explanation in a list."""

    id: str
    project: str
    exchange_id: str | None
    created_at: datetime
    method: str
    verdict: Verdict
    verdict_reason: str
    r2: float | None
    """Out-of-fold R2: how well masks that were not fitted are predicted."""
    r2_low: float | None
    """Lower end of its 95% interval."""
    r2_high: float | None
    n_segments: int
    """Players: parts of the prompt that were taken out and put back."""
    n_terms: int
    """Terms of the spectrum."""
    masks: int
    """Readings that it cost, repeats included."""
    flags: tuple[FlagRecord, ...]


@documented
@dataclass(frozen=True, slots=True)
class ExplanationPage:
    """One page of a list, newest first."""

    items: tuple[ExplanationRow, ...]
    next_cursor: str | None
    """Pass it as `cursor`, with the same filters, for the next page; null on the last one."""


@documented
@dataclass(frozen=True, slots=True)
class FidelityRecord:
    """How far the numbers can be trusted. The value is in nats, for log-probabilities."""

    r2: float | None
    r2_low: float | None
    r2_high: float | None
    noise_sigma: float | None
    """Standard deviation of repeated measurements of the full prompt."""
    noise_ceiling: float | None
    """No fit can honestly score above it."""
    value_full: float | None
    """Value of the full prompt."""
    value_empty: float | None
    """Value with every segment taken out."""
    masks: int
    """Distinct masks that were measured."""


@documented
@dataclass(frozen=True, slots=True)
class HierarchyRecord:
    """Do interactions stand on their parts? Of the strongest terms of the spectrum; all rates between 0 and 1."""

    direct_subset_rate: float
    """DSR: mean share of a term's direct subsets (one segment less) that are among them."""
    strong_chain_rate: float
    """SCR: share of terms that some order of segments builds up among them."""
    subset_rate: float
    """SHR: share of terms all of whose subsets are among them."""
    terms: int
    """How many terms, the constant included."""
    interactions: int
    """How many of them join two segments or more."""
    standing: float
    """SCR of the interactions alone."""


@documented
@dataclass(frozen=True, slots=True)
class CostRecord:
    """What it cost the model server."""

    masks: int
    prompt_tokens: int
    cached_tokens: int
    """Those of them that came from its prefix cache."""
    seconds: float
    """Wall time of asking."""


@documented
@dataclass(frozen=True, slots=True)
class TargetRecord:
    """What is explained: tokens [start, end) of the answer."""

    start: int
    end: int
    label: str
    is_cut: bool
    """True if the answer is longer, so that its tail is not explained."""


@documented
@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One player: a part of the prompt, and what keeping it adds."""

    number: int
    """From 1. Character number `number` of a mask says whether it was kept."""
    text: str | None
    message: int
    """Position of its message in the prompt, from 0."""
    role: str
    provenance: str
    """`system`, `user`, `tool:search`, ..."""
    char_start: int
    char_end: int
    token_start: int
    token_end: int
    effect: float
    """Banzhaf value: how much keeping it adds on average over all other segments kept or not."""
    strength: float
    """effect over the largest absolute effect, -1 to 1."""


@documented
@dataclass(frozen=True, slots=True)
class InteractionRecord:
    """Segments that act together: what they add beyond their separate effects."""

    segments: tuple[int, ...]
    """Their numbers, two or more."""
    effect: float
    """Banzhaf interaction index."""
    fourier: float
    moebius: float
    """What they add beyond all smaller groups of them, when nothing else is present."""
    standard_error: float | None
    reading: str
    """The sign in words."""


@documented
@dataclass(frozen=True, slots=True)
class TermRecord:
    """One term of the spectrum: v(mask) = sum of F(T) * product over i in T of (-1)^mask_i."""

    segments: tuple[int, ...]
    """Empty for the constant."""
    fourier: float
    standard_error: float | None


@documented
@dataclass(frozen=True, slots=True)
class ExplanationRecord:
    """Why an answer came out, and how far that can be trusted."""

    id: str
    project: str
    exchange_id: str | None
    created_at: datetime
    verdict: Verdict
    """Look here first: anything but `reliable` means that the effects should not be believed."""
    verdict_reason: str
    fidelity: FidelityRecord
    hierarchy: HierarchyRecord
    cost: CostRecord
    flags: tuple[FlagRecord, ...]
    target: TargetRecord
    erased: bool
    """True if the content was destroyed: the segments' texts are null then, all numbers stay."""
    segments: tuple[SegmentRecord, ...]
    interactions: tuple[InteractionRecord, ...]
    """The strongest first, at most 32 with the single segments among them."""
    recipe: Mapping[str, Any]
    """Everything that was chosen beforehand: budget, seed, plugins with their versions."""
    recipe_digest: str
    game_ids: tuple[str, ...]
    n_terms: int
    terms: tuple[TermRecord, ...] | None
    """The whole spectrum, if asked for with `terms=true`."""
    trace_id: str | None
    """Of the job's own trace, which is linked to the request's."""
    span_id: str | None


@documented
@dataclass(frozen=True, slots=True)
class GameEvidence:
    """All that was measured of one game, in the order in which it was committed."""

    game_id: str
    digest: str
    segmenter: str
    masker: str
    value: str
    """What was measured of the answer."""
    scorer: Mapping[str, str]
    n_segments: int
    masks: tuple[str, ...]
    """One text of 0 and 1 for each reading: character i is 1 if segment i was kept."""
    values: tuple[float | None, ...]
    replicates: tuple[int, ...]
    """0 for the first time that a mask was asked, 1, 2, ... for repeats that measure noise."""
    blocks: tuple[int, ...]
    """Which answered batch each reading came in."""


@documented
@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """What an explanation follows from: fit anything you like to it."""

    explanation_id: str
    games: tuple[GameEvidence, ...]


@documented
@dataclass(frozen=True, slots=True)
class CheckRecord:
    """One link of the chain from token ids to what is shown."""

    name: str
    passed: bool
    skipped: bool
    """True where the content was erased, so that the link can no longer be followed."""
    detail: str


@documented
@dataclass(frozen=True, slots=True)
class VerificationRecord:
    """Whether an explanation follows from its stored evidence."""

    explanation_id: str
    passed: bool
    checks: tuple[CheckRecord, ...]
