"""Every small term at once: correlations of what is left with all players, pairs and (if not too many) triples.

The code finds a term only if nearly every sign in a bin is right; a correlation
over all masks needs far less. At a signal-to-noise ratio of 10 dB and less most weak terms come from here.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.walsh import Supports, exact_transform, pack_masks
from spex_proxy.facts.evidence import Masks

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

MOST_TRIPLES = 200_000
"""Triples are tried for up to 107 players."""
FEW_PLAYERS = 14
"""Up to here every term is tried, whatever its size."""
STRONGEST = 1024
"""Terms that are looked at closely."""


def strongest(masks: Masks, residuals: Floats) -> Supports:
    """The small terms that correlate most with residuals (m,) over masks (m, n): (terms, words).

    Of one to three players; of any number where all 2^n are few. No term of nobody.
    """
    n = masks.shape[1]
    if n <= FEW_PLAYERS:
        return of_any_size(masks, residuals)
    signs: Floats = np.where(masks, -1.0, 1.0)
    found = [(np.arange(n)[:, None], signs.T @ residuals), pairs(signs, residuals, 0)]
    if comb(n, 3) <= MOST_TRIPLES:
        for first in range(n - 2):
            two, strength = pairs(signs, residuals * signs[:, first], first + 1)
            found.append((np.concatenate([np.full((len(two), 1), first), two], axis=1), strength))
    strengths = np.abs(np.concatenate([strength for _, strength in found]))
    count = min(STRONGEST, len(strengths))
    least = np.partition(strengths, -count)[-count]
    return np.concatenate([packed(players[np.abs(strength) >= least], n) for players, strength in found])


def of_any_size(masks: Masks, residuals: Floats) -> Supports:
    """`strongest` of all 2^n terms at once, by the fast transform."""
    size = 1 << masks.shape[1]
    sums: Floats = np.bincount(pack_masks(masks)[:, 0].astype(np.int64), weights=residuals, minlength=size).astype(
        np.float64
    )
    every = exact_transform(sums)
    order = np.argsort(-np.abs(every.coefficients[1:]), kind="stable")[:STRONGEST]
    return every.supports[1:][order]


def pairs(signs: Floats, residuals: Floats, start: int) -> tuple[Numbers, Floats]:
    """Pairs of the players from `start` on, (pairs, 2), and their correlations times m, (pairs,)."""
    later = signs[:, start:]
    rows, columns = np.triu_indices(later.shape[1], 1)
    correlations: Floats = ((later * residuals[:, None]).T @ later)[rows, columns]
    return np.stack([rows, columns], axis=1) + start, correlations


def packed(players: Numbers, n_players: int) -> Supports:
    """Sets of one size (k, size) as bitsets (k, words)."""
    masks = np.zeros((len(players), n_players), dtype=np.bool_)
    np.put_along_axis(masks, players, True, axis=1)
    return pack_masks(masks)
