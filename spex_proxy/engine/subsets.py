"""All 2^k coalitions of a few chosen players while every other player stays: the masks of a table. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from spex_proxy.facts.evidence import Evidence, Masks

MOST_PLAYERS = 4
"""Sixteen rows; nobody reads thirty-two."""


def choose(players: Sequence[int], n_players: int) -> tuple[int, ...]:
    """The players in order. Raises ValueError for some that are not of the game, are named twice, or are too many."""
    chosen = tuple(sorted(players))
    if not 1 <= len(chosen) <= MOST_PLAYERS:
        raise ValueError(f"choose 1 to {MOST_PLAYERS} segments, not {len(chosen)}")
    if len(set(chosen)) != len(chosen) or chosen[0] < 0 or chosen[-1] >= n_players:
        raise ValueError(f"choose different segments between 1 and {n_players}")
    return chosen


def coalitions(chosen: Sequence[int], n_players: int) -> Masks:
    """Shape (2^k, n): from none of the chosen players to all of them, smaller coalitions first; the others kept."""
    kept = np.asarray(list(itertools.product((False, True), repeat=len(chosen))), dtype=np.bool_)
    kept = kept[np.lexsort([*kept.T, kept.sum(axis=1)])]
    masks = np.ones((len(kept), n_players), dtype=np.bool_)
    masks[:, list(chosen)] = kept
    return masks


def unmeasured(masks: Masks, evidence: Evidence) -> Masks:
    """Shape (m', n): those of `masks` of which the evidence holds no reading."""
    known = {row.tobytes() for row in np.packbits(evidence.masks, axis=1)}
    is_new = np.asarray([row.tobytes() not in known for row in np.packbits(masks, axis=1)], dtype=np.bool_)
    return masks[is_new]
