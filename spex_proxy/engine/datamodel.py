"""Spectra of training data: how well they predict retraining, which examples work together, which few decide.

    LDS            linear datamodeling score: Spearman's correlation, over held-out random subsets, between predicted
                   and measured values of one test example; the mean over test examples
                   (Park et al. 2023, TRAK, arXiv 2303.14186, section 2; "linear" by its origin: any predictor has one)
    brittleness    the fewest examples whose removal turns a prediction (Ilyas et al. 2022, datamodels, arXiv
                   2202.00622, section 4.1). The value is the margin of the right class, so it is turned under 0
    synergistic    examples that do more together than each for itself would, in the direction in which they go;
    redundant      ... less (ProxySPEX, arXiv 2505.17495, section 5, has Moebius coefficients in their place; Banzhaf's
                   are means over what else is kept, which uniform masks do tell)

What a spectrum says of few removals from the full mask lies far from uniform masks: re-test it by real retraining
(`plug.playing.removals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from spex_proxy.engine import extremes, walsh
from spex_proxy.engine.extremes import TIME_LIMIT, Smallest
from spex_proxy.engine.indices import banzhaf_interactions, banzhaf_values
from spex_proxy.facts.spectrum import Spectrum

SIZES = (2, 3)
"""Sets of so many examples are looked at: what a person can check by eye."""


@dataclass(frozen=True, slots=True, eq=False)
class Lds:
    """How well predictions order what was measured."""

    mean: float
    """Over the test examples whose values vary; NaN where none does."""
    each: NDArray[np.float64]
    """Shape (k,). One for each test example; NaN where its measured values are all the same: there is no order."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Players that act together."""

    players: tuple[int, ...]
    interaction: float
    """Banzhaf interaction index (-2)^|T| F(T), in the value's unit."""
    apart: float
    """Sum of the players' Banzhaf values: the direction in which they go, each for itself."""

    @property
    def is_synergistic(self) -> bool:
        """Together they go further in their direction; else they stand in for one another."""
        return self.interaction * self.apart > 0


def lds(predicted: ArrayLike, measured: ArrayLike) -> Lds:
    """Predicted and measured values (k, t) of k test examples on t subsets; equal values share a rank.

    Predictions that are all the same order nothing: 0. Raises ValueError for shapes that differ, fewer than two
    subsets, and values that are not finite.
    """
    guesses, truth = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if guesses.shape != truth.shape or guesses.ndim != 2 or guesses.shape[0] < 1 or guesses.shape[1] < 2:
        raise ValueError(
            f"predicted {guesses.shape} and measured {truth.shape} must both be (test examples, subsets), "
            "one and two at least"
        )
    if not (np.isfinite(guesses).all() and np.isfinite(truth).all()):
        raise ValueError("a predicted or measured value is not finite")
    each = np.asarray([spearman(one, other) for one, other in zip(guesses, truth, strict=True)])
    known = each[~np.isnan(each)]
    return Lds(float(known.mean()) if len(known) else float("nan"), each)


def spearman(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    """Of two vectors (t,): Pearson's correlation of their ranks."""
    ranks = np.stack([scipy.stats.rankdata(predicted), scipy.stats.rankdata(measured)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(axis=1))
    if lengths[1] == 0:
        return float("nan")
    return 0.0 if lengths[0] == 0 else float(ranks[0] @ ranks[1] / (lengths[0] * lengths[1]))


def joint_sets(spectrum: Spectrum, count: int, *, is_synergistic: bool, sizes: Sequence[int] = SIZES) -> list[Joint]:
    """The `count` strongest synergistic (or redundant) sets of these sizes, by |F(T)|; equal ones in canonical order.

    |F|, not the index: it is the same scale for all sizes (see `rank_interactions`). Sets whose players go nowhere
    each for itself have no direction and are neither. Raises ValueError for a negative count or sets of fewer than 2.
    """
    if count < 0 or any(size < 2 for size in sizes):
        raise ValueError(f"can't take {count} sets of {tuple(sizes)}; sets have two players at least")
    singles, strengths = banzhaf_values(spectrum), banzhaf_interactions(spectrum)
    orders = spectrum.orders()
    found: list[Joint] = []
    chosen = np.flatnonzero(np.isin(orders, list(sizes)))
    players = spectrum.players()
    for row in chosen[np.argsort(-np.abs(spectrum.coefficients[chosen]), kind="stable")]:
        if len(found) == count:
            break
        one = Joint(players[row], float(strengths[row]), float(singles[list(players[row])].sum()))
        if one.interaction * one.apart != 0 and one.is_synergistic == is_synergistic:
            found.append(one)
    return found


def brittle(spectrum: Spectrum, error: float = 0.0, *, time_limit: float = TIME_LIMIT) -> Smallest:
    """The fewest examples whose removal takes the margin to the other side of 0, by more than `error`.

    `error`: how far predictions are off (`out-of-fold` root mean square error, say): a set that is predicted to
    turn the margin by a hair turns it by chance. Raises ValueError for an error that is negative or no number.
    """
    if not error >= 0:
        raise ValueError(f"the error is {error}; it is a number of 0 or more")
    full = float(walsh.predict(spectrum, np.ones((1, spectrum.n_players), dtype=np.bool_))[0])
    return extremes.necessary(spectrum, -error if full >= 0 else error, time_limit=time_limit)
