"""From rows to a result that says how far it can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from spex_proxy.engine import designs, fidelity, proxyspex, stack, structured, walsh
from spex_proxy.engine.hierarchy import hierarchy
from spex_proxy.engine.near import near
from spex_proxy.engine.rows import Rows
from spex_proxy.facts.evidence import Values
from spex_proxy.facts.explanation import Fidelity, Verdict
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

Method = Callable[[Rows, Recipe], proxyspex.ProxyFit]


def by_seed(fit: Callable[[Rows, int], proxyspex.ProxyFit]) -> Method:
    """A method that fits any masks needs no more of the recipe than its seed, and which masks it draws together."""
    return lambda rows, recipe: fit(replace(rows, units=designs.units(rows.masks, recipe, rows.uniform)), recipe.seed)


METHODS: dict[str, Method] = {
    "proxyspex": by_seed(proxyspex.fit),
    "stack": by_seed(stack.fit),
    "spex": structured.fit,
}
"""What a recipe can name: (rows, recipe) -> spectrum, out-of-fold predictions of the uniform rows, and how."""

RELIABLE_R2 = 0.5
"""Below it, more of what moves the value lies outside the explanation than inside."""
RELIABLE_R2_LOW = 0.3
"""A lower end below this says that the figure may be luck: the masks were too few to tell."""
EFFECT_SIGMAS = 3.0
"""|v(full) - v(empty)| under so many sigmas is no effect."""
SPREAD_SIGMAS = 2.0
"""A standard deviation of all values under so many sigmas may be noise alone: sigma itself comes from
few repeats. Not enough by itself: the masks must also fail to predict anything."""
HIERARCHY_TERMS = 100
"""The strongest terms, over which `how["hierarchy"]` tells whether interactions stand on their parts."""
ROUNDING = 1e-9
"""Relative size of differences that are arithmetic, not measurement."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What was found."""

    spectrum: Spectrum
    fidelity: Fidelity
    how: dict[str, Any]
    """JSON-able. What `verify_fit.check` reads beside the spectrum: method ("exact", "constant" or one
    of METHODS), rows, noise_sigma, penalties (one per term; none for "exact"), or for "stack" its members.
    What a person may want: shapes and their rounds, strength, terms, folds, seeds, `hierarchy` and `near` (see
    there; `near` is None where no mask near the full one was measured), and `stopped`: why no more was asked."""
    verdict: Verdict
    verdict_reason: str


def conclude(recipe: Recipe, rows: Rows, stopped: str = "") -> Fit:
    """Fit all rows: exactly if all 2^n masks are there, else by the recipe's method, one of METHODS.

    A constant, and the verdict that there is nothing to explain, if the values
    do not vary, or vary no more than repeats do while the masks predict nothing.

    BLAS gets one thread: a fit is thousands of small products, whose threads wait for each other longer than they
    work. Beside two busy processes on two cores a fit of 64 players and 512 masks took 100 s with two, 1.7 s with one.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        return _conclude(recipe, rows, stopped)


def _conclude(recipe: Recipe, rows: Rows, stopped: str) -> Fit:
    fair = designs.fair(rows.masks, recipe)
    rows = replace(rows, uniform=fair, units=designs.units(rows.masks, recipe, fair))
    sigma = fidelity.noise_sigma(rows.full_values)
    common = {"seed": recipe.seed, "rows": len(rows), "noise_sigma": sigma, "stopped": stopped}
    if np.ptp(rows.values) <= ROUNDING * np.max(np.abs(rows.values)):
        return constant(rows, sigma, common, "the output does not depend on the players at all")
    if rows.complete:
        variance = float(np.var(rows.values))
        r2 = low = high = 1.0 - 2.0 * sigma**2 / variance
        spectrum, how = exact(rows), {"method": "exact"}
    else:
        found = method_of(recipe)(rows, recipe)
        values = rows.values[rows.uniform]
        r2 = fidelity.r_squared(values, found.predictions)
        low, high = fidelity.interval(values, found.predictions, recipe.seed, compared_units(rows))
        spectrum, how = found.spectrum, {"method": recipe.method, **found.how}
    if low <= 0 and within_noise(rows, sigma):
        reason = "removing everything changes the output no more than asking again does"
        return constant(rows, sigma, common, reason)
    figures = judged(rows, sigma, r2, low, high)
    common["hierarchy"] = asdict(hierarchy(spectrum, HIERARCHY_TERMS))
    close = near(spectrum, how, rows, sigma)
    common["near"] = asdict(close) if close else None
    return Fit(spectrum, figures, {**how, **common}, *verdict_of(figures, rows.complete))


def method_of(recipe: Recipe) -> Method:
    """Raises ValueError for a method that nobody knows."""
    if recipe.method not in METHODS:
        raise ValueError(f"method {recipe.method!r} is unknown; there is {', '.join(METHODS)}")
    return METHODS[recipe.method]


def exact(rows: Rows) -> Spectrum:
    """The Walsh transform of all 2^n values: nothing is estimated."""
    numbers = walsh.pack_masks(rows.masks)[:, 0].astype(np.int64)
    values = np.empty(len(rows))
    values[numbers] = rows.values
    return walsh.exact_transform(values)


def within_noise(rows: Rows, sigma: float) -> bool:
    """True if neither the whole prompt nor the spread of all values stands out of the noise."""
    effect = abs(rows.value_full - rows.value_empty)
    return effect < EFFECT_SIGMAS * sigma and float(np.std(rows.values)) < SPREAD_SIGMAS * sigma


def constant(rows: Rows, sigma: float, common: dict[str, Any], reason: str) -> Fit:
    """Nothing to explain: the mean of all rows. Its R2 is judged like any other, by the mean of all other rows: a
    little below 0, and further where the whole and the empty prompt, which are among the rows, stand apart."""
    spectrum = Spectrum.from_terms(rows.n_players, [()], [float(np.mean(rows.values))])
    values = compared(rows)
    others = (float(rows.values.sum()) - values) / max(1, len(rows) - 1)
    low, high = fidelity.interval(values, others, common["seed"], compared_units(rows))
    figures = judged(rows, sigma, fidelity.r_squared(values, others), low, high)
    how = {"method": "constant", "penalties": [0.0], **common}
    return Fit(spectrum, figures, how, "nothing_to_explain", reason)


def judged(rows: Rows, sigma: float, r2: float, low: float, high: float) -> Fidelity:
    """The figures that go with a spectrum.

    When all masks were measured there is none left to predict; r2 then is what a
    second measurement of them all would score on average: 1 - 2 sigma^2 / variance.
    """
    return Fidelity(
        r2=r2,
        r2_low=low,
        r2_high=high,
        noise_sigma=sigma,
        noise_ceiling=fidelity.noise_ceiling(sigma, compared(rows)),
        value_full=rows.value_full,
        value_empty=rows.value_empty,
        masks=len(rows),
    )


def compared(rows: Rows) -> Values:
    """What fidelity is about: all values when all masks were measured, else those of uniform masks."""
    return rows.values if rows.complete else rows.values[rows.uniform]


def compared_units(rows: Rows) -> NDArray[np.int64] | None:
    """Of `compared`'s values: which were drawn together."""
    return rows.units if rows.units is None or rows.complete else rows.units[rows.uniform]


def verdict_of(figures: Fidelity, complete: bool) -> tuple[Verdict, str]:
    """Reliable or not, and why, for the person who reads it. `complete`: all 2^n masks were measured."""
    share = f"{100 * max(0.0, figures.r2):.0f}% of what masking does to the output"
    if figures.r2 < RELIABLE_R2:
        if figures.noise_ceiling < RELIABLE_R2:
            return "unreliable", f"it predicts {share}, and repeats of one prompt differ too much for more"
        return "unreliable", f"it predicts {share}; at least {100 * RELIABLE_R2:.0f}% is asked for"
    if figures.r2_low < RELIABLE_R2_LOW:
        low = f"{100 * max(0.0, figures.r2_low):.0f}%"
        return "unreliable", f"it predicts {share}, but on so few masks that it may be only {low}"
    if complete:
        return "reliable", f"every combination was measured; it holds {share}"
    return "reliable", f"it predicts {share}, tested on masks that it was not fitted to"
