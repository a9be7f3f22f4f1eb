"""Does a stored result follow from the evidence that is stored with it?

Two levels. `check` repeats only the closed-form last step, on the stored support,
and must agree to 1e-9 of the values' spread on any machine. `refit` repeats everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spex_proxy.engine import fidelity, regression, stack, walsh
from spex_proxy.engine.conclude import Fit, conclude, exact
from spex_proxy.engine.rows import Rows, rows_of
from spex_proxy.facts.errors import VerificationFailed
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

TOLERANCE = 1e-9
"""Largest difference that rounding alone can explain, of shares such as R2; and of what is in the value's unit as a
share of how far the values spread."""
DIGITS = 1e-14
"""What rounding does to a value, as a share of the value: where all are far from 0, more than their spread tells."""


def check(spectrum: Spectrum, how: Mapping[str, Any], recipe: Recipe, evidence: Evidence) -> float:
    """Largest absolute difference between stored and repeated coefficients and noise sigma.

    Every measurement counts: it moves a coefficient, or as a repeat of the full
    prompt the mean of the repeats and sigma. Raises VerificationFailed when
    `how` does not fit the spectrum, the recipe or the evidence, BadEvidence as `rows_of` does.
    """
    rows = rows_of(evidence)
    if spectrum.n_players != rows.n_players:
        raise VerificationFailed(
            f"the spectrum is over {spectrum.n_players} players, the evidence over {rows.n_players}"
        )
    if how.get("rows") != len(rows):
        raise VerificationFailed(f"{how.get('rows')} masks were fitted, but {len(rows)} are stored")
    if how.get("seed") != recipe.seed:
        raise VerificationFailed(f"the fit used seed {how.get('seed')}, the recipe says {recipe.seed}")
    repeated = last_step(spectrum, how, rows)
    differences = np.abs(spectrum.coefficients - repeated)
    sigma = abs(float(how["noise_sigma"]) - fidelity.noise_sigma(rows.full_values))
    return float(np.max([*differences, sigma]))  # NumPy's, because Python's max() lets a NaN pass


def tolerance(evidence: Evidence) -> float:
    """Largest difference in the value's unit that rounding alone can explain: log-probabilities or micrometres."""
    values = evidence.values.astype(np.float64)
    if not len(values):
        return 0.0
    return TOLERANCE * float(np.max(np.abs(values - values.mean()))) + DIGITS * float(np.max(np.abs(values)))


def last_step(spectrum: Spectrum, how: Mapping[str, Any], rows: Rows) -> regression.Floats:
    """The coefficients that the evidence gives to the stored support, shape (terms,)."""
    method = how.get("method")
    if method == "exact":
        again = exact(rows) if rows.complete else None
        if again is None or not np.array_equal(again.supports, spectrum.supports):
            raise VerificationFailed("an exact spectrum has a coefficient for each of the 2^n masks measured")
        return again.coefficients
    if method not in ("proxyspex", "stack", "spex", "constant"):
        raise VerificationFailed(f"nothing is known of the method {method!r}")
    try:
        if method == "stack":
            return stack.combined(spectrum.supports, how.get("members", ()), rows)
        penalties = np.asarray(how.get("penalties", ()), dtype=np.float64)
        characters = walsh.characters(rows.masks, spectrum.supports)
        return regression.closed_form(characters, rows.values, penalties)
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationFailed(f"the stored penalties do not fit the stored terms: {error!r}") from error


def refit(recipe: Recipe, evidence: Evidence) -> Fit:
    """The whole fit of all evidence once more, whether or not `decide` would ask for more by now.

    Equal to the stored one bit for bit with the same libraries on the same kind
    of machine; elsewhere xgboost may break a tie otherwise, and the drift is
    what there is to report.
    """
    return conclude(recipe, rows_of(evidence))
