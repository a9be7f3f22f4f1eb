"""Scorers: probes -> readings, one module a backend, all with the shape of `Scorer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from spex_proxy.facts.evidence import Probe, Reading
from spex_proxy.facts.game import Scorer as ScorerFacts
from spex_proxy.ports.gate.rules import Manner


@dataclass(frozen=True, slots=True)
class Scored:
    """One answered batch."""

    readings: tuple[Reading | None, ...]
    """In the probes' order; None for one that was not answered and may be asked again. At least one was."""
    prompt_tokens: int
    cached_tokens: int
    seconds: float


class Scorer(Protocol):
    """Asks the model what the original answer is worth after each masked prompt."""

    facts: ScorerFacts
    batch_size: int
    """Most probes in one call."""
    max_tokens: int | None
    """Most tokens of one probe (prompt and answer together); None if unknown."""
    manner: Manner
    """How its questions bear on production."""

    async def score(self, probes: Sequence[Probe], headers: Mapping[str, str]) -> Scored:
        """Readings for at most `batch_size` probes; `headers` carry the trace context.

        Raises UpstreamBusy (ask again), UpstreamError or BadReply (give up).
        """
        ...
