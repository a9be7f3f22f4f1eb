"""What is measured of a fit, the same for us and for peers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.games import Live
from spex_proxy.engine import fidelity, interactions, walsh
from spex_proxy.facts.evidence import Masks, Values
from spex_proxy.facts.spectrum import Spectrum


def r_squared(spectrum: Spectrum, test: tuple[Masks, Values]) -> float:
    """On the test rows."""
    masks, values = test
    return fidelity.r_squared(values, walsh.predict(spectrum, masks))


def shapley_error(values: NDArray[np.float64], game: Live) -> float | None:
    """|phi - truth|^2 / |truth|^2, None where the truth is unknown. Shapley values (n,)."""
    if game.truth is None:
        return None
    truth = interactions.shapley_values(game.truth)
    return float(((values - truth) ** 2).sum() / (truth**2).sum())


def recovered(spectrum: Spectrum, game: Live) -> float | None:
    """Which share of the k true terms of two players or more is among the k strongest such terms found."""
    if game.truth is None:
        return None
    planted = strongest(game.truth, len(game.truth))
    return len(planted & strongest(spectrum, len(planted))) / len(planted)


def strongest(spectrum: Spectrum, count: int) -> set[tuple[int, ...]]:
    """The `count` terms of two players or more with the largest |F| above rounding."""
    sizes, strength = spectrum.orders(), np.abs(spectrum.coefficients)
    order = np.argsort(-np.where(sizes >= 2, strength, 0.0), kind="stable")[:count]
    players, least = spectrum.players(), 1e-9 * float(strength.max())
    return {players[i] for i in order if sizes[i] >= 2 and strength[i] > least}
