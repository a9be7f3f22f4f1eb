"""What the stack is made of: surrogates behind one small interface.

A member ends as a `Ridge`: a support with a penalty for each term, so that its
coefficients are `regression.closed_form` of the rows, whatever found the support.
Before that it predicts every fold from the other four, for each of its settings.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import gaussian, lasso, posterior, proxyspex, regression, walsh
from spex_proxy.engine.draws import SUBSET, shuffled
from spex_proxy.engine.proxyspex import Problem
from spex_proxy.engine.regression import Floats
from spex_proxy.engine.walsh import Coefficients, Supports
from spex_proxy.facts.evidence import Masks

LEARN_ROWS = 320
"""Rows that the Gaussian process learns its prior from. All rows (512) gained .002 of R2 and cost 3 times as much."""
CONDITION_ROWS = 2048
"""Most rows that it is conditioned on: memory grows with the square. The last step uses all rows anyway."""
DIGITS = 5
"""Significant digits of a stored penalty. The rounded one is the one that is used."""


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """Terms and how strongly each is held down."""

    supports: Supports
    """Shape (k, words). The constant first."""
    penalties: Floats
    """Shape (k,). 0 for the constant. Free of the value's unit."""

    def coefficients(self, masks: Masks, values: Floats) -> Coefficients:
        """Shape (k,), in the unit of values (m,)."""
        return regression.closed_form(walsh.characters(masks, self.supports), values, self.penalties)

    def predict(self, train: Masks, values: Floats, test: Masks) -> Floats:
        """Shape (t,), after fitting the training rows."""
        return walsh.characters(test, self.supports) @ self.coefficients(train, values)


class Member(Protocol):
    """A surrogate of one problem."""

    name: str

    def held_out(self, fold: int) -> Floats:
        """Predictions (settings, rows of the fold) by fits that never saw the fold's values."""

    def final(self, setting: int, /) -> tuple[Ridge, dict[str, Any]]:
        """The fit of all rows, by the problem's numbers, and what a person may want to know of it (JSON-able)."""


def ridge(supports: Supports, prior: Floats, strength: float) -> Ridge:
    """Penalties strength / prior (k-1,), rounded; terms whose prior is too small to matter are floored."""
    floored = np.maximum(prior, 1e-9 * prior.max(initial=0.0))
    penalties = strength / np.where(floored > 0, floored, 1.0)
    rounded = np.asarray([float(f"{p:.{DIGITS}g}") for p in penalties], dtype=np.float64)
    return Ridge(supports, np.concatenate([[0.0], rounded]))


class Trees:
    """ProxySPEX (`proxyspex`): boosted trees find the terms. Settings: the ridge's strengths."""

    name = "trees"

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.forests, self.curves = proxyspex.grow_folds(problem)

    def held_out(self, fold: int) -> Floats:
        return proxyspex.ridge_fold(self.problem, self.forests, self.curves, fold)

    def final(self, setting: int) -> tuple[Ridge, dict[str, Any]]:
        rounds, strength = proxyspex.best_rounds(self.curves), float(proxyspex.STRENGTHS[setting])
        proxy, how = proxyspex.final_proxy(self.problem, rounds)
        prior = regression.prior_variances(proxy.coefficients[1:])
        return ridge(proxy.supports, prior, strength), {
            **{k: v for k, v in how.items() if k != "terms"},
            "strength": strength,
        }


class Gaussian:
    """The Walsh-kernel Gaussian process (`gaussian`). One setting: it learns its own."""

    name = "gaussian"

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.z = gaussian.signs(problem.masks)
        self.order = shuffled(len(problem.values), problem.seed, SUBSET)

    def held_out(self, fold: int) -> Floats:
        inside = self.problem.folds == fold
        found, _ = self.fit(self.order[~inside[self.order]])
        masks, values = self.problem.masks, self.problem.values
        return found.predict(masks[~inside], values[~inside], masks[inside])[None, :]

    def final(self, _setting: int) -> tuple[Ridge, dict[str, Any]]:
        found, prior = self.fit(self.order)
        relevance = np.empty_like(prior.relevance)
        relevance[self.problem.players] = prior.relevance
        return found, {"scales": prior.scales.tolist(), "noise": prior.noise, "relevance": relevance.tolist()}

    def fit(self, rows: regression.Numbers) -> tuple[Ridge, gaussian.Prior]:
        """Learn from rows, given in random order; only their values are looked at.

        Terms that are not kept vary from mask to mask like noise, and are counted as noise.
        """
        learnt = gaussian.learn(self.z[rows[:LEARN_ROWS]], self.problem.values[rows[:LEARN_ROWS]])
        used = np.sort(rows[:CONDITION_ROWS])
        seen = posterior.condition(self.z[used], self.problem.values[used], learnt)
        strongest = posterior.spectrum(seen, proxyspex.TERMS)
        kept = posterior.prior_variances(seen.prior, strongest.supports)
        dropped = max(0.0, posterior.prior_variance(seen) - float(kept.sum()))
        return ridge(strongest.supports, kept[1:], seen.prior.noise + dropped), seen.prior


class Lasso:
    """The lasso (`lasso`) over single players, or over pairs too. Settings: lambdas.

    At the lasso's minimum X'(v - X c) = m lambda sign(c) = (m lambda / |c|) c: it is
    the ridge with penalties m lambda / |c| on the terms that it keeps.
    """

    name = "lasso"

    def __init__(self, problem: Problem, order: int = 1) -> None:
        self.problem = problem
        n = problem.masks.shape[1]
        sets = [np.asarray(list(itertools.combinations(range(n), size))) for size in range(1, min(order, n) + 1)]
        self.supports = np.concatenate([posterior.pack(each, n) for each in sets])
        self.z = walsh.characters(problem.masks, self.supports)

    def held_out(self, fold: int) -> Floats:
        inside = self.problem.folds == fold
        constants, slopes = self.path(~inside)
        predictions: Floats = constants[:, None] + slopes.T @ self.z[inside].T
        return predictions

    def path(self, rows: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """The same shares of the largest useful lambda in every fold; that one is read off the fold's own rows."""
        z, values = self.z[rows], self.problem.values[rows]
        return lasso.path(z, values, lasso.lambdas(z, values))

    def final(self, setting: int) -> tuple[Ridge, dict[str, Any]]:
        z, values = self.z, self.problem.values
        strength = float(lasso.lambdas(z, values)[setting])
        _, slopes = lasso.path(z, values, np.asarray([strength]))
        kept = np.flatnonzero(slopes[:, 0])
        supports = np.concatenate([np.zeros_like(self.supports[:1]), self.supports[kept]])
        return ridge(supports, np.abs(slopes[kept, 0]), len(values) * strength), {"lambda": strength}


class Constant:
    """The mean: what is left to say when no other member can be trusted."""

    name = "constant"

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def held_out(self, fold: int) -> Floats:
        inside = self.problem.folds == fold
        return np.full((1, int(inside.sum())), float(self.problem.values[~inside].mean()))

    def final(self, _setting: int) -> tuple[Ridge, dict[str, Any]]:
        supports = posterior.pack(np.zeros((1, 0), dtype=np.int64), self.problem.masks.shape[1])
        return Ridge(supports, np.zeros(1)), {}
