"""Shapley values from pairs of a mask and its complement: what is even in the players cancels before it is fitted.

Shapley values depend on odd terms only (`interactions.shapley_values`). Half the difference of a pair,

    d(S) = (v(S) - v(N - S)) / 2 = sum over odd T of F(T) chi_T(S),

holds nothing else: pairs of players, however strong, neither have to be found nor count as noise (paired sampling:
Covert & Lee 2021, arXiv 2012.01536; the odd spectrum: OddSHAP, arXiv 2602.01399). The design is `paired`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import draws, interactions, stack
from spex_proxy.engine.proxyspex import ProxyFit
from spex_proxy.engine.rows import Rows
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.spectrum import Spectrum


def odd_rows(rows: Rows, seed: int = 0) -> Rows:
    """One row a pair, its value d. Raises BadEvidence if no two masks are complements of each other.

    Which of both stands for the pair is drawn: were it always the one with player 0, its term would be a constant.
    """
    partner = draws.positions(rows.masks, ~rows.masks)
    first = np.flatnonzero(partner > np.arange(len(rows)))
    if not len(first):
        raise BadEvidence("no mask has its complement among these; ask the design `paired`")
    second = partner[first]
    swapped = (draws.raw_words(seed, draws.SUBSET, len(first)) & np.uint64(1)).astype(np.bool_)
    first, second = np.where(swapped, second, first), np.where(swapped, first, second)
    masks, values = rows.masks[first], (rows.values[first] - rows.values[second]) / 2.0
    uniform = rows.uniform[first] & rows.uniform[second]
    return Rows(masks, values, uniform, values[masks.all(axis=1)])


def shapley_values(rows: Rows, seed: int, fit: Callable[[Rows, int], ProxyFit] = stack.fit) -> NDArray[np.float64]:
    """Shape (n,). From the odd part alone; where full and empty were measured, they sum to v(N) - v(empty).

    Raises BadEvidence without pairs, and as `fit` does.
    """
    found = fit(odd_rows(rows, seed), seed).spectrum
    is_odd = found.orders() % 2 == 1
    odd = Spectrum(found.n_players, found.supports[is_odd], found.coefficients[is_odd])
    values = interactions.shapley_values(odd)
    missing = rows.value_full - rows.value_empty - values.sum()
    return values + missing / rows.n_players if np.isfinite(missing) else values
