"""Scorers: probes -> readings, one module a backend, all with the shape of `Scorer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from spex_proxy.facts.evidence import Probe, Reading
from spex_proxy.facts.game import Scorer as ScorerFacts
from spex_proxy.ports.gate.rules import Manner
from spex_proxy.wire.scoring import Usage


@dataclass(slots=True)
class Scored:
    """What has come of one batch so far. Whoever ends it in the middle keeps what there is."""

    readings: list[Reading | None]
    """In the probes' order; None for one that was not answered and may be asked again."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    width: int | None = None
    """Most probes that the server should hold at once, where that is less than the scorer's own bound."""
    yields: bool = False
    """The server is to keep them out of its engine while production is there, which scorers of that manner can ask."""
    interrupted: list[int] = field(default_factory=list)
    """Numbers of probes that the server has ended for production's sake and will ask again, once for each time."""
    untold: set[int] = field(default_factory=set)
    """Numbers of the probes of which the server has not said what it read for them: if the batch ends here, it may
    have read them, and nobody knows."""

    @classmethod
    def of(cls, probes: Sequence[Probe]) -> Scored:
        """Nothing has come yet."""
        return cls([None] * len(probes), untold=set(range(len(probes))))

    def at_once(self, most: int) -> int:
        """How many probes the server may hold, of a scorer that would give it `most`."""
        return most if self.width is None else min(most, self.width)

    def answered(self) -> int:
        """How many probes have a reading."""
        return sum(reading is not None for reading in self.readings)

    def tell(self, number: int, reading: Reading | None, prompt_tokens: int, cached_tokens: int) -> None:
        """The server has answered one probe, with a reading or without."""
        self.readings[number] = reading
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += cached_tokens
        self.untold.discard(number)

    def tell_all(self, readings: Sequence[Reading], usage: Usage) -> None:
        """The server has answered all probes in one piece, with one count of tokens."""
        for number, reading in enumerate(readings):
            self.tell(number, reading, 0, 0)
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens


class Scorer(Protocol):
    """Asks the model what the original answer is worth after each masked prompt."""

    facts: ScorerFacts
    batch_size: int
    """Most probes in one call."""
    max_tokens: int | None
    """Most tokens of one probe (prompt and answer together); None if unknown."""
    manner: Manner
    """How its questions bear on production."""
    reads: int
    """Most times that the server reads one probe before it is answered."""

    async def score(self, probes: Sequence[Probe], headers: Mapping[str, str], into: Scored | None = None) -> Scored:
        """Readings for at most `batch_size` probes, at least one; `headers` carry the trace context. They are put
        `into` what is given as they come, so that they are there when this is cancelled.

        Raises UpstreamBusy (ask again), UpstreamError or BadReply (give up).
        """
        ...
