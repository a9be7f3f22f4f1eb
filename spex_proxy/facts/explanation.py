"""What is said in the end, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from spex_proxy.facts.exchange import Target
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

Verdict = Literal["reliable", "unreliable", "nothing_to_explain"]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How well the spectrum predicts masks that it has not seen, and how well anything could."""

    r2: float
    """Out-of-fold R2 over the uniform masks."""
    r2_low: float
    """Lower end of the 95% bootstrap interval."""
    r2_high: float
    noise_sigma: float
    """Standard deviation of repeated measurements of the full prompt."""
    noise_ceiling: float
    """1 - noise_sigma^2 / variance of the values: no fit can honestly score above it."""
    value_full: float
    """Mean value of the full prompt."""
    value_empty: float
    """Value with every player masked."""
    masks: int
    """Distinct masks that were measured."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """One term, ready to be ranked, searched and shown."""

    players: tuple[int, ...]
    fourier: float
    """F(T)."""
    banzhaf: float
    """Banzhaf interaction index (-2)^|T| F(T): for one player, how much keeping it adds on average."""
    moebius: float
    """Moebius (Harsanyi) coefficient: what T adds beyond all its subsets, nothing else present."""
    standard_error: float | None

    @property
    def order(self) -> int:
        return len(self.players)


@dataclass(frozen=True, slots=True)
class Cost:
    """What an explanation cost the model server."""

    masks: int
    """Readings, replicates included."""
    prompt_tokens: int
    cached_tokens: int
    seconds: float
    """Wall time of asking."""


@dataclass(frozen=True, slots=True)
class Flag:
    """Something that a person should look at, on an exchange or on an explanation."""

    name: str
    detail: str
    """Ours quotes no content: it outlives it."""
    score: float | None = None
    """How strong, in the flagger's own measure; None if it has none."""
    flagger: str = ""
    """Who raised it: the name of a plugin, `verdict` or `target` for what every explanation says of itself,
    `feedback`, or what an outside guardrail calls itself."""
    version: str = ""
    """Of the flagger: `distribution version`; empty if nobody said."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why an output came out. Cites its games; a pure function of their evidence and the recipe."""

    id: str
    project: str
    exchange_id: str | None
    game_ids: tuple[str, ...]
    target: Target
    recipe: Recipe
    spectrum: Spectrum
    fidelity: Fidelity
    interactions: tuple[Interaction, ...]
    """The strongest terms first, the constant left out; at most 32."""
    how: Mapping[str, Any]
    """What the closed-form last step needs to be repeated: engine.decide says what is in it."""
    verdict: Verdict
    verdict_reason: str
    cost: Cost
    flags: tuple[Flag, ...]
    trace_id: str | None
    span_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Check:
    """One link of the chain from token ids to what is shown, followed by `verify`."""

    name: str
    is_passed: bool
    detail: str
    is_skipped: bool = False
    """True where the content was erased, so that the link can no longer be followed."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of a list: an exchange and what became of it."""

    exchange_id: str
    upstream_id: str | None
    received_at: datetime
    model: str
    state: str
    """`captured`, `queued`, `running`, `failed: why`, or the explanation's verdict."""
    explanation_id: str | None
    r2: float | None
    answer: str
    """The answer's first characters; empty if the content was erased."""
