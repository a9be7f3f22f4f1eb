"""The whole extension contract: what a plugin of each kind must offer.

A plugin is a class (or factory) without required arguments, named by an entry
point of its kind's group. One instance serves the whole process: it must hold no
state between calls, must be safe to call from several threads, and must give
equal results for equal arguments, on every machine; stored explanations are
checked by calling it again. `name` must equal the entry point's name.
A plugin imports spex_proxy.facts, .plug, .wire and .engine, nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Values
from spex_proxy.facts.exchange import Exchange, Segmentation, TextRange
from spex_proxy.facts.explanation import Explanation


@runtime_checkable
class Segmenter(Protocol):
    """Cuts the prompt into players."""

    name: str

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        """Disjoint, non-empty ranges in prompt order. What no range covers is never masked."""
        ...


@runtime_checkable
class Masker(Protocol):
    """Turns a coalition into a prompt.

    One that puts text in the place of masked segments says which by an attribute `filler`, not empty; the token ids
    of that text are in `players.filler`, since only the model's own tokenizer knows them.
    """

    name: str

    def apply(self, prompt_ids: Sequence[int], players: Segmentation, mask: NDArray[np.bool_]) -> tuple[int, ...]:
        """The prompt with only the players of `mask` (shape (n,), True = kept) in it.

        The full mask must give back `prompt_ids` unchanged.
        """
        ...


@runtime_checkable
class Value(Protocol):
    """Turns what the model answered into one number per coalition."""

    name: str
    unit: str
    """For people: `nats`, ..."""

    def read(self, logprobs: NDArray[np.float32]) -> Values:
        """Log-probabilities (m, k) of the target's tokens -> values (m,), float64."""
        ...


ABOUT = ("exchange", "explanation")
"""What a flagger may be about."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a flagger looks at."""

    exchange: Exchange
    explanation: Explanation | None = None
    """Of the exchange; None for flaggers that are about exchanges."""
    players: Segmentation | None = None
    """The explanation's players; None without one."""


@runtime_checkable
class Flagger(Protocol):
    """Says what a person should look at. A rules file names it, with options."""

    name: str
    about: str
    """What it is shown: `exchange`, when it is stored, or `explanation`, before that is stored."""

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises ValueError, in words for whoever wrote the rules file, for options that it does not understand."""
        ...

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Sequence[tuple[str, float | None]]:
        """(detail, score) of each thing that it finds; empty for nothing. A detail quotes no content."""
        ...


KINDS: dict[str, tuple[str, type]] = {
    "segmenter": ("spex_proxy.segmenters", Segmenter),
    "masker": ("spex_proxy.maskers", Masker),
    "value": ("spex_proxy.values", Value),
    "flagger": ("spex_proxy.flaggers", Flagger),
}
"""Kind -> (entry-point group, protocol). A new kind is a new line here."""
