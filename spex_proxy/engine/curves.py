"""How well an explanation's order holds when it is acted on: deletion and insertion, Removal and Recovery.

    deletion     players are taken out of the full mask, the most important first; the value should fall at once
    insertion    they are put into the empty mask, the most important first; it should rise at once
    Removal(r)   |v(N) - v(S*)| / |v(N)|, S* the set of n - r players that the spectrum expects to move the value
                 furthest from v(N) (ProxySPEX, arXiv 2505.17495, eq. 4)
    Recovery@r   (1/r) sum over i <= r of |S* & S_i| / |S_i|, S_i the i-th strongest term, S* the players that a
                 person says matter (SPEX, arXiv 2502.13870, section 6)

Which masks to look at follows from the spectrum; what they are worth is measured, or predicted by the spectrum.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import extremes, interactions, walsh
from spex_proxy.engine.extremes import TIME_LIMIT
from spex_proxy.engine.indices import rank_interactions
from spex_proxy.facts.evidence import Masks, Values
from spex_proxy.facts.spectrum import Spectrum

Order = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Values along a path of masks, from one end to the other."""

    masks: Masks
    """Shape (n + 1, n)."""
    values: Values
    """Shape (n + 1,)."""

    @property
    def area(self) -> float:
        """Mean height over the path, 0 = v(empty), 1 = v(full); nan if these are equal. Deletion is good when it is
        small, insertion when it is large."""
        ends = self.values[self.masks.all(axis=1)], self.values[~self.masks.any(axis=1)]
        full, empty = float(ends[0].mean()), float(ends[1].mean())
        if full == empty:
            return float("nan")
        return float(np.trapezoid((self.values - empty) / (full - empty)) / (len(self.values) - 1))


def importance(spectrum: Spectrum) -> Order:
    """Players by Shapley value, those first that carry the value from v(empty) to v(full): shape (n,)."""
    corner = np.array([[True] * spectrum.n_players, [False] * spectrum.n_players])
    full, empty = walsh.predict(spectrum, corner)
    towards = interactions.shapley_values(spectrum) * (1.0 if full >= empty else -1.0)
    return np.argsort(-towards, kind="stable").astype(np.int64)


def deletion_masks(order: Order) -> Masks:
    """Row r has lost the first r players of `order` (n,): shape (n + 1, n)."""
    return ~insertion_masks(order)


def insertion_masks(order: Order) -> Masks:
    """Row r has the first r players of `order` (n,): shape (n + 1, n)."""
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    masks: Masks = rank < np.arange(len(order) + 1)[:, None]
    return masks


def removal_mask(spectrum: Spectrum, r: int, *, time_limit: float = TIME_LIMIT) -> NDArray[np.bool_]:
    """Shape (n,). Without the r players whose removal moves the spectrum's value furthest from that of the full mask.

    Raises ValueError for an r outside 0..n.
    """
    full = float(walsh.predict(spectrum, np.ones((1, spectrum.n_players), dtype=np.bool_))[0])
    both = [
        extremes.subset(spectrum, r, is_removed=True, highest=highest, time_limit=time_limit)
        for highest in (True, False)
    ]
    furthest = max(both, key=lambda found: abs(found.value - full))
    mask = np.ones(spectrum.n_players, dtype=np.bool_)
    mask[list(furthest.removed)] = False
    return mask


def removal(value_full: float, value_removed: float) -> float:
    """Removal(r) of measured values; nan where v(N) is 0."""
    return abs(value_full - value_removed) / abs(value_full) if value_full else float("nan")


def recovery(spectrum: Spectrum, important: Collection[int], r: int) -> float:
    """Recovery@r, over as many terms as there are. Raises ValueError for an r below 1; nan without terms."""
    if r < 1:
        raise ValueError(f"r is {r}; Recovery@r looks at one term at least")
    wanted = set(important)
    shares = [len(wanted & set(term.players)) / len(term.players) for term in rank_interactions(spectrum, r)]
    return float(np.mean(shares)) if shares else float("nan")
