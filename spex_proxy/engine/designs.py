"""Which masks to ask, and in what order: a deterministic function of (players, recipe).

Only PCG64's raw words are used. NumPy promises that bit generators keep their
streams; it does not promise that of `Generator.integers` and its kin, and a
resumed job must ask the masks that it would have asked before the upgrade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.walsh import all_masks, pack_masks
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Masks, Replicates
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import WORD_BITS

FIRST_UNIFORM = 32
"""Uniform masks after the first round; every later round doubles them."""
MIN_UNIFORM = 10
"""Two to each of five folds: below that an out-of-fold R2 is no figure at all."""
LEAVE_ONE_OUT_SHARE = 8
"""Leave-one-outs are asked when they cost at most 1/8 of the budget. They answer the first question
everybody has (what if this one sentence were gone?), but a uniform mask teaches a spectrum more."""
MAX_SHUFFLED_PLAYERS = 16
"""Up to here all 2^n masks are shuffled; above, draws are made and the rare repeats dropped."""

MASKS, FOLDS, TREES, BOOTSTRAP, SUBSET = range(5)
"""Independent streams under one seed."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Every question in the order of asking, as if the budget were spent to its end."""

    masks: Masks
    """Shape (m, n)."""
    replicates: Replicates
    """Shape (m,)."""
    rounds: NDArray[np.int64]
    """Shape (m,). Non-decreasing, from 0. A fit is tried after each round."""

    def __len__(self) -> int:
        return int(self.masks.shape[0])


def raw_words(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    """`count` uniform uint64 words; a longer call begins with the same words.

    Raises ValueError for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"the seed is {seed}; seeds are 0 or greater")
    return np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(count)


def shuffled(count: int, seed: int, stream: int) -> NDArray[np.int64]:
    """A seeded order of 0..count-1, shape (count,)."""
    return np.argsort(raw_words(seed, stream, count), kind="stable").astype(np.int64)


def is_corner(masks: Masks) -> NDArray[np.bool_]:
    """Shape (m,). True for the full, the empty and the leave-one-out masks, which are asked on purpose."""
    kept: NDArray[np.int64] = masks.sum(axis=1, dtype=np.int64)
    corner: NDArray[np.bool_] = (kept == 0) | (kept >= masks.shape[1] - 1)
    return corner


def uniform_masks(n_players: int, count: int, seed: int) -> Masks:
    """Distinct uniform masks off the corner, (count, n); fewer when no more exist.

    A larger count begins with the same masks.
    """
    if n_players <= MAX_SHUFFLED_PLAYERS:
        every = all_masks(n_players)[shuffled(1 << n_players, seed, MASKS)]
        return every[~is_corner(every)][:count]
    words = -(-n_players // WORD_BITS)
    count = min(count, (1 << n_players) - n_players - 2)
    draws = count + WORD_BITS
    while True:
        raw = raw_words(seed, MASKS, draws * words).reshape(draws, words)
        bits = np.unpackbits(raw.astype("<u8").view(np.uint8), axis=1, bitorder="little")
        masks = bits[:, :n_players].astype(np.bool_)
        _, first = np.unique(pack_masks(masks), axis=0, return_index=True)
        masks = masks[np.sort(first)]
        masks = masks[~is_corner(masks)]
        if len(masks) >= count:
            return masks[:count]
        draws *= 2


def plan(n_players: int, recipe: Recipe) -> Plan:
    """The full mask (replicates 0..r-1), the empty one, leave-one-outs, uniform masks in doubling rounds.

    If all 2^n masks fit into the budget, all are there. Raises BadEvidence for a
    game without players or a budget that no fit can come from, ValueError for a
    recipe without replicates.
    """
    replicates, budget = recipe.replicates, recipe.budget
    if n_players < 1:
        raise BadEvidence("a game without players has nothing to mask")
    if replicates < 1:
        raise ValueError(f"recipe.replicates is {replicates}; the full prompt must be measured at least once")
    everything = n_players < 63 and replicates - 1 + (1 << n_players) <= budget
    opening = [np.ones((replicates, n_players), dtype=np.bool_), np.zeros((1, n_players), dtype=np.bool_)]
    if n_players > 1 and (everything or n_players <= budget // LEAVE_ONE_OUT_SHARE):
        opening.append(~np.eye(n_players, dtype=np.bool_))
    first = np.concatenate(opening)
    uniform = uniform_masks(n_players, max(0, budget - len(first)), recipe.seed)
    if not everything and len(uniform) < MIN_UNIFORM:
        smallest = replicates - 1 + (1 << n_players) if n_players < 4 else replicates + 1 + MIN_UNIFORM
        raise BadEvidence(f"{n_players} players need a budget of at least {smallest} masks, not {budget}")
    numbers = np.zeros(len(first) + len(uniform), dtype=np.int64)
    numbers[:replicates] = np.arange(replicates)
    doublings = np.ceil(np.log2((np.arange(len(uniform)) + 1) / FIRST_UNIFORM))
    rounds = np.concatenate([np.zeros(len(first)), np.maximum(0, doublings)]).astype(np.int64)
    return Plan(np.concatenate([first, uniform]), numbers, rounds)
