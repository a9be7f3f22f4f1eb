"""Do interactions stand on their parts? Three measures of how far a spectrum's terms form a hierarchy.

After ProxySPEX (arXiv 2505.17495), over a set of terms F:

    DSR  mean over S of the share of its direct subsets S - {i} that are in F
    SCR  share of S that some order of players builds up within F, one by one
    SHR  share of S all of whose subsets are in F

A caution that goes with the numbers: the strongest terms of any spectrum favour
low orders, and a surrogate that grows terms from smaller ones finds hierarchy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spex_proxy.engine import walsh
from spex_proxy.facts.spectrum import Spectrum


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """All three between 0 and 1; the constant is a term and counts as built up."""

    direct_subset_rate: float
    strong_chain_rate: float
    subset_rate: float
    terms: int
    """How many terms they are about, the constant included."""
    interactions: int
    """How many of them join two players or more."""
    standing: float
    """Share of the interactions that some order of players builds up: SCR without the terms of which it is always
    true. 1 if there are none."""


def hierarchy(spectrum: Spectrum, k: int | None = None) -> Hierarchy:
    """Of the constant and the `k` strongest other terms, or of all terms."""
    chosen = spectrum if k is None else walsh.truncate(spectrum, k)
    direct: list[float] = []
    chained: dict[frozenset[int], bool] = {}
    closed: dict[frozenset[int], bool] = {}
    for players in chosen.players():  # by size, so that a term's parts come before it
        term = frozenset(players)
        parts = [term - {player} for player in players]
        direct.append(sum(part in chained for part in parts) / len(parts) if parts else 1.0)
        chained[term] = not parts or any(chained.get(part, False) for part in parts)
        closed[term] = all(closed.get(part, False) for part in parts)
    dsr, scr, shr = (float(np.mean(list(each))) for each in (direct, chained.values(), closed.values()))
    joint = [is_built for term, is_built in chained.items() if len(term) > 1]
    return Hierarchy(dsr, scr, shr, len(chosen), len(joint), float(np.mean(joint)) if joint else 1.0)
