"""What was asked and what it was worth. An explanation is a function of this, and of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.seals import seal

Masks = NDArray[np.bool_]
"""Shape (m, n). Row = one coalition, True = player kept."""
Values = NDArray[np.float64]
"""Shape (m,). What each coalition was worth, in the value's unit (nats for log-probabilities)."""
LogProbs = NDArray[np.float32]
"""Shape (m, k). Log-probability in nats of each scored token, per coalition."""
Replicates = NDArray[np.int64]
"""Shape (m,). 0 for the first time a mask is asked; 1, 2, ... for repeats that measure noise."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question to the model: a masked prompt followed by the original answer."""

    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    digest: str
    """Keyed with the salt of the exchange's content."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer to one probe."""

    logprobs: NDArray[np.float32]
    """Shape (k,). Log-probability in nats of each token of `probe.output_ids`."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """What was asked and not answered to the end: production came, the server refused, a connection broke. It was asked
    again; what the server had read of it by then, it told nobody."""

    batches: int = 0
    masks: int = 0
    most_tokens: int = 0
    """Prompt tokens that it can have read for them, at most; they are in no block and in no cost."""

    def __add__(self, other: Unanswered) -> Unanswered:
        return Unanswered(self.batches + other.batches, self.masks + other.masks, self.most_tokens + other.most_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One answered batch: the unit in which evidence is committed.

    Invariants: masks (m, n), replicates (m,), values (m,), logprobs (m, k), m >= 1.
    """

    number: int
    """Position among the blocks of its game, from 0."""
    masks: Masks
    replicates: Replicates
    values: Values
    logprobs: LogProbs
    prompt_tokens: int
    """Tokens that the server says it was sent for this batch (probe and answer)."""
    cached_tokens: int
    """Those of them that it read from its prefix cache."""
    seconds: float
    """Wall time of the batch. Never enters a fit."""
    probes_digest: str
    """Seal over the probes' keyed digests, in order."""

    def digest(self) -> str:
        """Seal of everything that a fit reads: masks, replicates, values, per-token values."""
        return seal(
            np.asarray([self.number, *self.masks.shape, self.logprobs.shape[1]], dtype="<i8").tobytes(),
            np.packbits(self.masks, axis=1).tobytes(),
            self.replicates.astype("<i8").tobytes(),
            self.values.astype("<f8").tobytes(),
            self.logprobs.astype("<f4").tobytes(),
            self.probes_digest.encode("ascii"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """All that is known of a game: masks (m, n), values (m,), replicates (m,).

    The order of rows carries no meaning: whatever reads evidence sorts it first,
    so that a resumed explanation equals an undisturbed one.
    """

    masks: Masks
    values: Values
    replicates: Replicates

    @property
    def n_players(self) -> int:
        return int(self.masks.shape[1])

    def __len__(self) -> int:
        return int(self.masks.shape[0])

    @classmethod
    def empty(cls, n_players: int) -> Evidence:
        return cls(np.zeros((0, n_players), dtype=np.bool_), np.zeros(0), np.zeros(0, dtype=np.int64))

    @classmethod
    def from_blocks(cls, n_players: int, blocks: Sequence[Block]) -> Evidence:
        """Join blocks. A mask asked twice under one replicate number (a crash between
        answer and commit elsewhere) counts once: the earliest block wins."""
        if not blocks:
            return cls.empty(n_players)
        masks = np.concatenate([b.masks for b in blocks])
        values = np.concatenate([b.values for b in blocks])
        replicates = np.concatenate([b.replicates for b in blocks])
        keys = np.concatenate([np.packbits(masks, axis=1), replicates[:, None].view(np.uint8)], axis=1)
        _, first = np.unique(keys, axis=0, return_index=True)
        keep = np.sort(first)
        return cls(masks[keep], values[keep], replicates[keep])
