"""How well a spectrum predicts masks near the full one: what a person asks first, and what uniform masks do not test.

R2 over uniform masks judges prompts of which half is gone. This judges those that keep nearly all: the
leave-one-outs that were measured, and whatever else keeps nine players of ten.

Such rows are few and every fold trains on them, so out-of-fold predictions there are not to be had. Instead
each row is left out of the closed-form last step, exactly and without a refit (`regression.leave_one_out`).
That is half honest: the row's value does not enter the coefficients that predict it, but it did take part in
choosing which terms there are, how firmly each is held, and how the members are weighed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import regression, walsh
from spex_proxy.engine.rows import Rows
from spex_proxy.facts.evidence import Masks, Values
from spex_proxy.facts.spectrum import Spectrum

KEEP_MOST = 10
"""A mask is near the full one if it removes at most one player in so many; one player always is."""


@dataclass(frozen=True, slots=True)
class Near:
    """Errors on masks near the full one, in the value's unit. `dataclasses.asdict` of it is `how["near"]`."""

    masks: int
    """How many were measured."""
    rmse: float
    """Root mean square of predicted minus measured value."""
    typical: float
    """Root mean square of what these masks change: measured value minus value of the full mask."""
    r2: float
    """1 - (rmse / typical)^2: 0 is as good as to say that nothing changes; 0 also where nothing does."""
    judged: str
    """`left out` (see above), or `repeated`: all 2^n were measured, and a second measurement would differ by this."""


def is_near(masks: Masks) -> NDArray[np.bool_]:
    """Shape (m,). Masks that remove a player, but hardly any more."""
    removed = masks.shape[1] - masks.sum(axis=1)
    found: NDArray[np.bool_] = (removed > 0) & (removed <= max(1, masks.shape[1] // KEEP_MOST))
    return found


def near(spectrum: Spectrum, how: Mapping[str, Any], rows: Rows, sigma: float) -> Near | None:
    """None where no such mask was measured, the full mask was not, or nothing is known of the last step.

    `sigma`: standard deviation of one measurement.
    """
    chosen = is_near(rows.masks)
    if not chosen.any() or not np.isfinite(rows.value_full):
        return None
    changes = rows.values[chosen] - rows.value_full
    if rows.complete:
        return _near(changes, np.full(len(changes), np.sqrt(2.0) * sigma), "repeated")
    predicted = left_out(spectrum, how, rows)
    return None if predicted is None else _near(changes, (predicted - rows.values)[chosen], "left out")


def left_out(spectrum: Spectrum, how: Mapping[str, Any], rows: Rows) -> Values | None:
    """What each row (m,) is predicted to be by the last step on all others; None if it is no (sum of) ridges."""
    members = how.get("members")
    if members is None and "penalties" in how:
        members = [{"weight": 1.0, "terms": range(len(spectrum)), "penalties": how["penalties"]}]
    if not members:
        return None
    total = np.zeros(len(rows))
    for member in members:
        characters = walsh.characters(rows.masks, spectrum.supports[np.asarray(member["terms"], dtype=np.intp)])
        penalties = np.asarray(member["penalties"], dtype=np.float64)
        total += float(member["weight"]) * regression.leave_one_out(characters, rows.values, penalties)
    return total


def _near(changes: Values, errors: Values, judged: str) -> Near:
    typical = float(np.sqrt(np.mean(changes**2)))
    rmse = float(np.sqrt(np.mean(errors**2)))
    return Near(len(changes), rmse, typical, 1.0 - (rmse / typical) ** 2 if typical > 0 else 0.0, judged)
