"""Where a spectrum's energy lies: in single players, within groups, across groups.

By Parseval the variance of the value over uniform masks is the sum of F(T)^2 over T not empty; ProxySPEX
(arXiv 2505.17495, section 6) reports it for attention heads within and across layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spex_proxy.facts.spectrum import Spectrum


@dataclass(frozen=True, slots=True)
class Energy:
    """Shares of the energy, each in [0, 1]; their sum is 1, or 0 where the value never changes."""

    linear: float
    """Of single players."""
    within: float
    """Of interactions whose players are all of one group."""
    across: float
    """Of all other interactions."""


def energy(spectrum: Spectrum, groups: Sequence[str]) -> Energy:
    """`groups`: the group of each player. Raises ValueError if they are not as many as the players."""
    if len(groups) != spectrum.n_players:
        raise ValueError(f"{len(groups)} groups for {spectrum.n_players} players")
    sums = {"linear": 0.0, "within": 0.0, "across": 0.0}
    for players, coefficient in zip(spectrum.players(), spectrum.coefficients.tolist(), strict=True):
        if players:
            is_one = len({groups[player] for player in players}) == 1
            kind = "linear" if len(players) == 1 else "within" if is_one else "across"
            sums[kind] += coefficient**2
    total = sum(sums.values())
    return Energy(**{name: part / total if total else 0.0 for name, part in sums.items()})
