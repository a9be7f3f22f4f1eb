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
from spex_proxy.facts.game import GameKind


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


@dataclass(frozen=True, slots=True)
class Player:
    """One player of a game that is no production request: an attention head, a training example, ..."""

    text: str
    """What it is, for people: `layer 3, head 2`, or the example itself. Content: erasable. Not empty."""
    group: str = ""
    """What belongs together: `layer 3`, a class, a source. At most 60 characters, no content."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an opened game is about, and everything that fixes its values."""

    kind: GameKind
    subject: str
    """The model or data set, for lists: `SmolLM2-135M-Instruct`, `digits`."""
    players: tuple[Player, ...]
    items: tuple[str, ...]
    """What is measured for each coalition, one number each: a question, a test example, `accuracy`. At least one."""
    value: str
    """The value plugin that makes one number of a reading's: `mean` or `sum_logprob`, or a stranger's."""
    unit: str
    """Of each number: `logits`, `nats`, ..."""
    digest: str
    """Of everything that fixes the values: weights or data by their bytes, ablation or trainer, seed, code version."""
    batch: int
    """Most masks in one call of `measure`; what a crash may lose."""
    cost: str
    """What one mask costs, for people who decide upon a budget: `one forward pass of 40 tokens`."""
    notes: tuple[str, ...] = ()
    """What a reader of the results must know, in sentences. No content."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The answer to one batch of m coalitions."""

    readings: NDArray[np.float32]
    """Shape (m, k), one column for each of `Rules.items`. NaN in every column of a row that failed."""
    failures: Mapping[int, str]
    """Row -> why it has no reading. Never a made-up value in its place."""
    prompt_tokens: int = 0
    """Asked of the model server, if one was."""
    cached_tokens: int = 0


@runtime_checkable
class OpenGame(Protocol):
    """A game that can be played. Used by one thread at a time."""

    rules: Rules

    def measure(self, masks: NDArray[np.bool_]) -> Measured:
        """What coalitions (m, n), True = kept, are worth; 1 <= m <= `rules.batch`. Equal masks give equal readings.

        Whoever runs out of memory halves the batch by itself and goes on.
        """
        ...

    def close(self) -> None:
        """Give back memory and files. Called once."""
        ...


@runtime_checkable
class Recorded(Protocol):
    """What an OpenGame offers besides if it can answer some coalitions only, since they were measured elsewhere.

    No design is asked then: measure these, and fit (`engine.decide.settle`).
    """

    def recorded(self) -> NDArray[np.bool_]:
        """Shape (m, n). Every coalition that `measure` can answer, each once."""
        ...


class Ask(Protocol):
    """The model server, for games that are played by asking it (in-context examples, retrieved documents)."""

    model: str

    def tokens(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """A chat, rendered by the model's own template up to where the answer begins, as token ids."""
        ...

    def text_tokens(self, text: str) -> tuple[int, ...]:
        """A text alone, without special tokens, as token ids."""
        ...

    def score(self, questions: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Scores:
        """(prompt ids, answer ids) -> log-probabilities of each answer's tokens. Waits until all are answered."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What `Ask.score` found."""

    logprobs: tuple[NDArray[np.float32], ...]
    """In the order of the questions; shape (tokens of the answer,), nats."""
    prompt_tokens: int
    cached_tokens: int


@runtime_checkable
class GameMaker(Protocol):
    """Makes games of one family out of a configuration. Games hold state; their makers do not."""

    name: str
    needs_server: bool
    """Whether `open` wants the model server."""

    def open(self, config: Mapping[str, Any], ask: Ask | None) -> OpenGame:
        """Load what it takes to play.

        `config` is what stands in the person's file. Paths in it are relative to where `spex-proxy` runs.
        Raises ValueError for a configuration that makes no sense, in words for whoever wrote it (what, where, what
        to do); ModuleNotFoundError where an optional package is missing.
        """
        ...


KINDS: dict[str, tuple[str, type]] = {
    "segmenter": ("spex_proxy.segmenters", Segmenter),
    "masker": ("spex_proxy.maskers", Masker),
    "value": ("spex_proxy.values", Value),
    "flagger": ("spex_proxy.flaggers", Flagger),
    "game": ("spex_proxy.games", GameMaker),
}
"""Kind -> (entry-point group, protocol). A new kind is a new line here."""
