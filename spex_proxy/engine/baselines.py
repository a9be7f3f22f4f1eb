"""What others do with masks and values, behind the interface of our own methods: (rows, seed) -> ProxyFit.

For comparison, in the bench and in `explain(..., method=...)`. Each is as its paper says, but for this: it takes
the masks that it is given, and its predictions for judging come from five folds, like everyone's.

    kernelshap    weighted least squares on single players, efficient (Lundberg & Lee 2017, arXiv 1705.07874)
    lime          ridge on single players, weighed by nearness to the full mask (Ribeiro et al. 2016, arXiv 1602.04938)
    contextcite   lasso on standardised single players, lambda .01 (Cohen-Wang et al. 2024, arXiv 2409.00729)
    order1        lasso on single players, lambda by five folds (the baseline of ProxySPEX, arXiv 2505.17495)
    order2        the same on all pairs too
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import comb

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import lasso, regression, walsh
from spex_proxy.engine.draws import MASKS, raw_words
from spex_proxy.engine.members import Lasso
from spex_proxy.engine.proxyspex import N_FOLDS, ProxyFit, as_given, best_setting, problem_of
from spex_proxy.engine.regression import Floats
from spex_proxy.engine.rows import Rows
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Masks
from spex_proxy.facts.spectrum import Spectrum

LIME_WIDTH = 25.0
"""Kernel width of LIME's text explainer, for 100 times the cosine distance."""
LIME_STRENGTH = 1.0
"""Its ridge's penalty on 0/1 columns."""
CONTEXTCITE_LAMBDA = 0.01
"""In units of the values' standard deviation. ContextCite's own unit is log-odds by tokens of the answer, and tokens
are not known here."""
MOST_PAIRS = 20_000
"""More columns than this and the order-2 lasso takes minutes."""

Estimator = Callable[[Rows], Spectrum]
"""Rows, not all of those measured -> a spectrum."""


def additive(n_players: int, baseline: float, effects: Floats) -> Spectrum:
    """v(S) = baseline + sum over i in S of effects[i] (n,), as a spectrum: x_i = (1 - z_i) / 2."""
    terms = [(), *((player,) for player in range(n_players))]
    return Spectrum.from_terms(n_players, terms, np.concatenate([[baseline + effects.sum() / 2], -effects / 2]))


def kernel_shap(rows: Rows) -> Spectrum:
    """min sum_S w(S) (v(S) - v(0) - sum_{i in S} phi_i)^2 with sum phi = v(N) - v(0) (Lundberg & Lee 2017, theorem 2).

    The kernel (n-1) / (C(n,s) s (n-s)) gives all masks of one size s together the weight (n-1) / (s (n-s)). Here those
    that were measured share it: all masks there, that is the kernel, and Shapley values are exact; for masks drawn
    uniformly, or with sizes as `shapley_masks` draws them, it is the draw's correction (post-stratified).
    Where masks are too few to say, the effects nearest to equal ones. Raises BadEvidence without v(N) or v(0).
    """
    n, sizes = rows.n_players, rows.masks.sum(axis=1)
    full, empty = rows.value_full, rows.value_empty
    if not (np.isfinite(full) and np.isfinite(empty)):
        raise BadEvidence("KernelSHAP needs the values of the full and the empty mask")
    between = (sizes > 0) & (sizes < n)
    masks, size = rows.masks[between].astype(np.float64), sizes[between]
    counts = np.bincount(size, minlength=n + 1)
    weights = np.sqrt((n - 1) / (size * (n - size)) / counts[size])
    equal = np.full(n, (full - empty) / n)
    left = rows.values[between] - empty - masks @ equal
    # phi = equal + moved, where the moves sum to 0: columns with their row's mean taken out do not see the sum
    columns = masks - masks.mean(axis=1, keepdims=True)
    moved, *_ = np.linalg.lstsq(weights[:, None] * columns, weights * left, rcond=1e-10)
    return additive(n, empty, equal + moved - moved.mean())


def lime(rows: Rows) -> Spectrum:
    """Weighted ridge on 0/1 columns with a free constant.

    Weight sqrt(exp(-d^2 / 25^2)), d = 100 (1 - cos(mask, full)) = 100 (1 - sqrt(s / n)): LIME's text explainer.
    """
    n = rows.n_players
    distance = 100.0 * (1.0 - np.sqrt(rows.masks.sum(axis=1) / n))
    weights = np.sqrt(np.exp(-((distance / LIME_WIDTH) ** 2)))
    share = weights / weights.sum()
    columns = rows.masks.astype(np.float64)
    mean, value_mean = share @ columns, float(share @ rows.values)
    centred = (columns - mean) * np.sqrt(weights)[:, None]
    left = centred.T @ centred + LIME_STRENGTH * np.eye(n)
    effects = regression.solve_spd(left, centred.T @ (np.sqrt(weights) * (rows.values - value_mean)))
    return additive(n, value_mean - float(mean @ effects), effects)


def context_cite(rows: Rows) -> Spectrum:
    """Lasso on columns of mean 0 and standard deviation 1, lambda .01 in units of the values' spread."""
    columns = rows.masks.astype(np.float64)
    deviation = columns.std(axis=0)
    scaled = (columns - columns.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    strength = CONTEXTCITE_LAMBDA * float(rows.values.std())
    constants, slopes = lasso.path(scaled, rows.values, np.asarray([strength]))
    effects = slopes[:, 0] / np.where(deviation > 0, deviation, 1.0)
    return additive(rows.n_players, float(constants[0] - columns.mean(axis=0) @ effects), effects)


def judged(estimator: Estimator, name: str, rows: Rows, seed: int) -> ProxyFit:
    """All rows' spectrum, and each uniform row predicted by the other folds'. The corner trains every fold."""
    problem, _, _ = problem_of(rows, seed)
    folds = np.empty(len(rows), dtype=np.int64)
    folds[problem.order] = problem.folds
    predictions = np.empty(len(rows))
    for fold in range(N_FOLDS):
        inside = folds == fold
        predictions[inside] = walsh.predict(estimator(some(rows, ~inside)), rows.masks[inside])
    return ProxyFit(estimator(rows), predictions[rows.uniform], {"surrogate": name, "folds": N_FOLDS})


def some(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    """A part of the rows."""
    return Rows(rows.masks[chosen], rows.values[chosen], rows.uniform[chosen], rows.full_values)


def regularised(order: int, rows: Rows, seed: int) -> ProxyFit:
    """The lasso over all sets of at most `order` players, lambda by five folds; a fold is judged by the others' lambda.

    Raises BadEvidence when there are more than MOST_PAIRS such sets.
    """
    sets = sum(comb(rows.n_players, size) for size in range(1, order + 1))
    if sets > MOST_PAIRS:
        raise BadEvidence(
            f"{rows.n_players} players have {sets} sets of at most {order}; at most {MOST_PAIRS} can be fitted"
        )
    problem, centre, spread = problem_of(rows, seed)
    member = Lasso(problem, order)
    table = [member.held_out(fold) for fold in range(N_FOLDS)]
    honest = np.empty(len(rows))
    for fold in range(N_FOLDS):
        setting = best_setting(problem, table, [other for other in range(N_FOLDS) if other != fold])
        honest[problem.folds == fold] = table[fold][setting]
    found, how = member.final(best_setting(problem, table, list(range(N_FOLDS))))
    supports = problem.named(found.supports)
    spectrum = walsh.ordered(rows.n_players, supports, found.coefficients(problem.masks, rows.values[problem.order]))
    how = {"surrogate": f"order{order}", "folds": N_FOLDS, **how}
    return ProxyFit(spectrum, centre + spread * as_given(problem, honest)[rows.uniform], how)


SURROGATES: dict[str, Callable[[Rows, int], ProxyFit]] = {
    "kernelshap": partial(judged, kernel_shap, "kernelshap"),
    "lime": partial(judged, lime, "lime"),
    "contextcite": partial(judged, context_cite, "contextcite"),
    "order1": partial(regularised, 1),
    "order2": partial(regularised, 2),
}
"""Name -> (rows, seed) -> spectrum, out-of-fold predictions of the uniform rows, and how."""


def shapley_masks(n_players: int, count: int, seed: int) -> Masks:
    """KernelSHAP's own design (count, n): full and empty, then pairs of a mask and its complement.

    A size s is drawn with probability proportional to 1 / (s (n-s)), the kernel's weight of all masks of that size
    (Covert & Lee 2021, arXiv 2012.01536: pairs cancel all even orders). Repeats are left out, so fewer where no
    more exist. Raises ValueError for fewer than two players or four masks.
    """
    if n_players < 2 or count < 4:
        raise ValueError(f"{n_players} players and {count} masks leave nothing to draw")
    sizes = np.arange(1, n_players)
    cumulated = np.cumsum(1.0 / (sizes * (n_players - sizes)))
    wanted = min(count, 1 << min(n_players, 62))
    chosen: dict[bytes, NDArray[np.bool_]] = {}
    for each in (np.ones(n_players, dtype=np.bool_), np.zeros(n_players, dtype=np.bool_)):
        chosen[each.tobytes()] = each
    words, at = raw_words(seed, MASKS, (n_players + 1) * 4 * count), 0
    while len(chosen) < wanted - 1 and at + n_players + 1 <= len(words):
        share = float(words[at]) / 2.0**64 * cumulated[-1]
        size = 1 + int(np.searchsorted(cumulated, share, side="right"))
        mask = np.zeros(n_players, dtype=np.bool_)
        mask[np.argsort(words[at + 1 : at + 1 + n_players], kind="stable")[: min(size, n_players - 1)]] = True
        at += n_players + 1
        for each in (mask, ~mask):
            chosen[each.tobytes()] = each
    return np.stack(list(chosen.values()))[:wanted]
