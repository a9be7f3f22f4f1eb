"""The stack: several surrogates, weighed by how well each predicts what it has not seen.

Every member is refitted in each of five folds; its setting and the weights that
predict a fold come from the other four. What is judged is thus the whole
procedure, selection and weighing included. (But for this: a fold's values were
among the training rows of the fits that the other folds judge.)

The weights are those of a mixture, w >= 0 and sum w = 1, the mean of all values being a
member too. They minimise the squared error of out-of-fold predictions (Breiman 1996, stacked
regressions; docs/engine.md), held towards `BELIEFS` as by so many further observations: on 128 masks a
free fit of weights is luck.

The last step is closed: each member's coefficients are a ridge on its own
support, and the spectrum is their weighted sum. One ridge on the joint support
instead was measured to lose 3% of what is unexplained, whatever its strength.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from spex_proxy.engine import regression, uncertainty, walsh
from spex_proxy.engine.members import Constant, Gaussian, Lasso, Member, Ridge, Trees
from spex_proxy.engine.proxyspex import N_FOLDS, Problem, ProxyFit, as_given, best_setting, problem_of
from spex_proxy.engine.regression import Floats
from spex_proxy.engine.rows import Rows
from spex_proxy.facts.spectrum import Spectrum

BELIEFS = {"gaussian": 0.6, "trees": 0.4, "lasso": 0.0, "constant": 0.0}
"""Weights before anything was seen."""
BELIEF_ROWS = 50.0
"""How many observations the beliefs count for. Anything from 30 to 300 is equally good on the recorded games,
1 loses 2% of what is unexplained (4% at 128 masks)."""


Kind = Callable[[Problem], Member]
KINDS: tuple[Kind, ...] = (Gaussian, Trees, Lasso, Constant)


def fit(rows: Rows, seed: int, kinds: Sequence[Kind] = KINDS) -> ProxyFit:
    """Fit all rows; judge by five folds over the uniform ones. Of one kind alone, that member is the fit.

    Raises BadEvidence if there are fewer than MIN_UNIFORM of them.
    """
    problem, centre, spread = problem_of(rows, seed)
    members = [kind(problem) for kind in kinds]
    tables = [[member.held_out(fold) for fold in range(N_FOLDS)] for member in members]
    honest = np.empty(len(rows))
    for fold in range(N_FOLDS):
        others = [other for other in range(N_FOLDS) if other != fold]
        settings = [best_setting(problem, table, others) for table in tables]
        weights = weigh(problem, members, tables, settings, others)
        chosen = np.stack([table[fold][setting] for table, setting in zip(tables, settings, strict=True)])
        honest[problem.folds == fold] = weights @ chosen
    everything = list(range(N_FOLDS))
    settings = [best_setting(problem, table, everything) for table in tables]
    weights = weigh(problem, members, tables, settings, everything)
    error = float(np.mean((honest - problem.values)[problem.folds >= 0] ** 2)) * spread**2
    spectrum, how = final(problem, rows, members, settings, weights, error)
    return ProxyFit(spectrum, centre + spread * as_given(problem, honest)[rows.uniform], how)


def weigh(
    problem: Problem, members: Sequence[Member], tables: list[list[Floats]], settings: list[int], folds: list[int]
) -> Floats:
    """Weights (members,) that are >= 0 and sum to 1, from the predictions of these folds."""
    predictions = np.stack(
        [
            np.concatenate([table[fold][setting] for fold in folds])
            for table, setting in zip(tables, settings, strict=True)
        ],
        axis=1,
    )
    values = np.concatenate([problem.values[problem.folds == fold] for fold in folds])
    return mixture(predictions, values, np.asarray([BELIEFS[member.name] for member in members]))


def mixture(predictions: Floats, values: Floats, beliefs: Floats) -> Floats:
    """min |values - predictions w|^2 + BELIEF_ROWS e |w - beliefs|^2 over w >= 0, sum w = 1, (k,).

    e is the mean squared error of the best member: the minimum is the most likely w when errors are
    normal and w has prior variance 1 / BELIEF_ROWS around the beliefs. Non-negative least squares, the
    sum being a row that outweighs all others. Predictions (t, k) of standardised values (t,).
    """
    k = len(beliefs)
    error = float(((predictions - values[:, None]) ** 2).mean(axis=0).min())
    firm, heavy = np.sqrt(BELIEF_ROWS * error), 1e4 * np.sqrt(len(values))
    left = np.concatenate([predictions, firm * np.eye(k), np.full((1, k), heavy)])
    right = np.concatenate([values, firm * beliefs, [heavy]])
    weights, _ = scipy.optimize.nnls(left, right)
    found: Floats = weights / weights.sum()
    return found


def final(
    problem: Problem, rows: Rows, members: Sequence[Member], settings: list[int], weights: Floats, error: float
) -> tuple[Spectrum, dict[str, Any]]:
    """The weighted sum of the members' closed forms on all rows, and what `combined` needs to do it again.

    `error`: the mean squared out-of-fold error, from which the standard errors come.
    """
    used = [number for number in range(len(members)) if weights[number] > 0]
    finals = [
        (Ridge(problem.named(found.supports), found.penalties), more)
        for found, more in (members[number].final(settings[number]) for number in used)
    ]
    ridges = [found for found, _ in finals]
    zeros = [Spectrum(rows.n_players, found.supports, np.zeros(len(found.penalties))) for found in ridges]
    supports = walsh.combine(zeros, [1.0] * len(zeros)).supports
    described = [
        {
            "name": members[number].name,
            "weight": float(weights[number]),
            "terms": positions(found.supports, supports).tolist(),
            "penalties": found.penalties.tolist(),
            **more,
        }
        for number, (found, more) in zip(used, finals, strict=True)
    ]
    coefficients = combined(supports, described, rows)
    errors = standard_errors(supports, described, rows, error)
    how = {"members": described, "error": error, "folds": N_FOLDS}
    return Spectrum(rows.n_players, supports, coefficients, errors), how


def positions(of: walsh.Supports, supports: walsh.Supports) -> NDArray[np.int64]:
    """Where each set of `of` stands among `supports`, (k,)."""
    where = {row.tobytes(): number for number, row in enumerate(supports)}
    return np.asarray([where[row.tobytes()] for row in of], dtype=np.int64)


def combined(supports: walsh.Supports, members: Sequence[dict[str, Any]], rows: Rows) -> Floats:
    """The coefficients that the rows give to a support (k, words), (k,): the closed-form last step.

    `members` as `final` describes them. Raises ValueError when they do not fit the support.
    """
    if not members:
        raise ValueError("a stack without members")
    total = np.zeros(len(supports))
    for member in members:
        terms, found = ridge_of(supports, member)
        total[terms] += float(member["weight"]) * found.coefficients(rows.masks, rows.values)
    return total


def standard_errors(supports: walsh.Supports, members: Sequence[dict[str, Any]], rows: Rows, error: float) -> Floats:
    """Of `combined`'s coefficients, (k,). `error`: mean squared out-of-fold error, in the value's unit squared."""
    coefficients, relative = np.zeros((len(members), len(supports))), np.zeros((len(members), len(supports)))
    for number, member in enumerate(members):
        terms, found = ridge_of(supports, member)
        characters = walsh.characters(rows.masks, found.supports)
        coefficients[number, terms] = regression.closed_form(characters, rows.values, found.penalties)
        relative[number, terms] = uncertainty.variances(characters, found.penalties)
    weights = [float(member["weight"]) for member in members]
    return uncertainty.mixture_errors(coefficients, relative, weights, error, len(rows))


def ridge_of(supports: walsh.Supports, member: Mapping[str, Any]) -> tuple[NDArray[np.int64], Ridge]:
    """A described member: where its terms stand among the supports, (k,), and the ridge that it is.

    Raises ValueError when it does not fit the supports.
    """
    terms = np.asarray(member["terms"], dtype=np.int64)
    if not len(terms) or terms.min() < 0 or terms.max() >= len(supports):
        raise ValueError(f"a member's terms are not among the {len(supports)} stored ones")
    if len(np.unique(terms)) != len(terms):
        raise ValueError("a member has a term twice")
    return terms, Ridge(supports[terms], np.asarray(member["penalties"], dtype=np.float64))
