"""Which players, removed together, move the value most: what to read off a spectrum, and what to ask to be sure.

One copy of a text can stand in for another, so single effects see little of either; and two texts can work only
together. A set's removal is judged as a whole. What a spectrum says of one set among thousands is the best of
thousands of guesses, hence too good; so the sets that it names are measured, and the fit repeated with them
(`claims`), until it names none that was not (`measured_best`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spex_proxy.engine import extremes
from spex_proxy.engine.extremes import TIME_LIMIT, players_of
from spex_proxy.facts.evidence import Masks, Values
from spex_proxy.facts.spectrum import Spectrum

Sets = Mapping[int, tuple[int, ...]]
"""How many -> which players, sorted."""


def removal_sets(
    spectrum: Spectrum, sizes: Sequence[int], *, lowers: bool = True, time_limit: float = TIME_LIMIT
) -> Sets:
    """For each size, the players whose removal together makes the value lowest (or highest), as the spectrum has it.

    The sets need not be nested. Raises ValueError for a size outside 0..n.
    """
    return {
        size: extremes.subset(spectrum, size, is_removed=True, highest=not lowers, time_limit=time_limit).removed
        for size in sizes
    }


def decisive_sets(spectrum: Spectrum, sizes: Sequence[int], *, time_limit: float = TIME_LIMIT) -> Sets:
    """For each size, the set S with the largest v(only S) - v(all but S): what it does alone, and what is gone with it.

    Removal alone can't tell which two of two cooperating players and a bystander: one of the two is enough to
    remove. Alone, only both do anything. v(S) - v(N - S) = 2 sum F(T) chi_T(S) over odd |T|: complementing all of a
    mask turns the sign of odd terms only. Raises ValueError for a size outside 0..n.
    """
    is_odd = spectrum.orders() % 2 == 1
    is_odd[0] = True  # the constant's place; it is 0 here
    halves = 2.0 * spectrum.coefficients[is_odd]
    halves[0] = 0.0
    odd = Spectrum(spectrum.n_players, spectrum.supports[is_odd], halves)
    return {size: extremes.subset(odd, size, time_limit=time_limit).kept for size in sizes}


def claims(sets: Sets, masks: Masks) -> Masks:
    """The removals (c, n) that sets name and no mask (m, n) has asked yet, smallest first."""
    n = masks.shape[1]
    known = {mask.tobytes() for mask in masks}
    found = []
    for _, players in sorted(sets.items()):
        mask = np.ones(n, dtype=np.bool_)
        mask[list(players)] = False
        if mask.tobytes() not in known:
            known.add(mask.tobytes())
            found.append(mask)
    return np.asarray(found, dtype=np.bool_).reshape(len(found), n)


def measured_best(masks: Masks, values: Values, sets: Sets, *, lowers: bool = True) -> Sets:
    """For each size of `sets`, the removal of that size that was measured lowest (or highest); where none was, theirs.

    Masks (m, n), values (m,). Of equal ones the first measured.
    """
    removed = masks.shape[1] - masks.sum(axis=1)
    best = dict(sets)
    for size in sets:
        rows = np.flatnonzero(removed == size)
        if len(rows):
            of_these = values[rows] if lowers else -values[rows]
            best[size] = players_of(~masks[rows[int(np.argmin(of_these))]])
    return best
