"""SPEX on rows: decode the structured masks, then the closed-form ridge on all of them.

The decoder reads only the masks of its own design. The support that it finds
owes nothing to the uniform masks, so these judge it: five folds of them, each predicted by the
ridge on everything else. The public packages never run this last regression.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spex_proxy.engine import designs, draws, regression, walsh
from spex_proxy.engine.proxyspex import N_FOLDS, ProxyFit, assign_folds
from spex_proxy.engine.rows import Rows
from spex_proxy.engine.spex import decode, peeling
from spex_proxy.engine.spex.design import Blueprint
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Values
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

LEAST_PENALTY = 1e-9
"""Of a ridge that should be none: shrinks by 1e-9 / rows."""


def fit(rows: Rows, recipe: Recipe) -> ProxyFit:
    """The largest complete SPEX design among the rows, decoded; coefficients from all rows.

    `rows.uniform` are those that the decoder never sees (`designs.fair`). Raises
    BadEvidence if there are too few of them, or if no complete design is among the rows:
    SPEX can't be fitted to masks of another design.
    """
    coded = designs.blueprint(rows.n_players, recipe)
    bins = complete(rows, coded)
    terms = peeling.peel(bins)
    noise = float((terms.left**2).mean()) * terms.left.shape[1] * terms.left.size
    noise /= max(1, terms.left.size - len(terms.supports))
    found = walsh.ordered(rows.n_players, terms.supports, terms.coefficients)
    penalties = np.maximum(LEAST_PENALTY, noise / np.maximum(found.coefficients**2, np.finfo(np.float64).tiny))
    penalties[0] = 0.0
    characters = walsh.characters(rows.masks, found.supports)
    predictions = held_out(characters, rows, penalties, recipe.seed)
    coefficients = regression.closed_form(characters, rows.values, penalties)
    spectrum = Spectrum(rows.n_players, found.supports, coefficients)
    how = {"penalties": [float(p) for p in penalties], "terms": len(spectrum) - 1, "folds": N_FOLDS}
    return ProxyFit(spectrum, predictions, how | described(bins, float(np.sqrt(noise))))


def held_out(characters: Values, rows: Rows, penalties: Values, seed: int) -> Values:
    """Predictions of the uniform rows, each by the ridge on all rows but its fold of them: (uniform rows,).

    Raises BadEvidence if there are fewer than MIN_UNIFORM.
    """
    uniform = np.flatnonzero(rows.uniform)
    if len(uniform) < draws.MIN_UNIFORM:
        raise BadEvidence(f"{len(uniform)} uniform masks can't judge a fit; at least {draws.MIN_UNIFORM} are needed")
    folds = assign_folds(rows.uniform, seed, rows.units)
    predictions = np.empty(len(rows))
    for fold in range(N_FOLDS):
        inside = np.flatnonzero(folds == fold)
        seen = np.delete(np.arange(len(rows)), inside)
        predictions[inside] = characters[inside] @ regression.closed_form(
            characters[seen], rows.values[seen], penalties
        )
    return predictions[uniform]


def complete(rows: Rows, coded: Blueprint) -> peeling.Bins:
    """The bins of the most bits for which every mask was measured. Raises BadEvidence if there are none."""
    missing = asked = 0
    for bits in reversed(coded.layout.levels):
        masks = coded.masks(bits)
        found = draws.positions(rows.masks, masks.reshape(-1, rows.n_players))
        asked, missing = len(found), int((found < 0).sum())
        if not missing:
            return peeling.Bins(coded, bits, decode.transform(rows.values[found].reshape(masks.shape[:3])))
    raise BadEvidence(
        f"SPEX reads masks of its own design only: {missing} of the {asked} that this recipe's first round asks "
        "are not there. Ask those, or fit these masks with another method"
    )


def described(bins: peeling.Bins, left: float) -> dict[str, Any]:
    """For `how`: what was decoded, and the root mean square that the terms leave of one structured value."""
    layout = bins.design.layout
    return {"bits": bins.bits, "groups": layout.groups, "t": layout.t, "offsets": layout.offsets, "left": left}
