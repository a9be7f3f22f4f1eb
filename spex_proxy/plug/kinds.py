"""The whole extension contract: what a plugin of each kind must offer.

A plugin is a class (or factory) without required arguments, named by an entry
point of its kind's group. One instance serves the whole process: it must hold no
state between calls, must be safe to call from several threads, and must give
equal results for equal arguments, on every machine; stored explanations are
checked by calling it again. `name` must equal the entry point's name.
A plugin imports spex_proxy.facts, .plug, .wire and .engine, nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Values
from spex_proxy.facts.exchange import Exchange, Segmentation, TextRange


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


KINDS: dict[str, tuple[str, type]] = {
    "segmenter": ("spex_proxy.segmenters", Segmenter),
    "masker": ("spex_proxy.maskers", Masker),
    "value": ("spex_proxy.values", Value),
}
"""Kind -> (entry-point group, protocol). A new kind is a new line here."""
