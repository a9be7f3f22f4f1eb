"""What rounding may explain goes with the values, from effects of 1e-10 to values of 1e6."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spex_proxy.engine import walsh
from spex_proxy.engine.decide import Fit, decide
from spex_proxy.engine.indices import rank_interactions
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.explanation import Check, Explanation
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.flows import verify
from tests.unit.examples import an_explanation

MASKS = walsh.all_masks(4)
VALUES = MASKS @ np.array([1.0, -2.0, 0.5, 0.0]) + 3.0 * MASKS[:, 1] * MASKS[:, 3]
SCALES = pytest.mark.parametrize("scale", [1e-10, 1.0, 1e6])


def explained(scale: float) -> tuple[Explanation, Evidence]:
    recipe = Recipe(budget=16, replicates=1)
    evidence = Evidence(MASKS, scale * VALUES, np.zeros(len(MASKS), dtype=np.int64))
    fit = decide(recipe, evidence)
    assert isinstance(fit, Fit)
    return an_explanation(
        recipe=recipe,
        spectrum=fit.spectrum,
        fidelity=fit.fidelity,
        interactions=rank_interactions(fit.spectrum),
        how=fit.how,
        verdict=fit.verdict,
        verdict_reason=fit.verdict_reason,
    ), evidence


def times(spectrum: Spectrum, factors: np.ndarray | float) -> Spectrum:
    return replace(spectrum, coefficients=spectrum.coefficients * factors)


def failed(explanation: Explanation, evidence: Evidence) -> set[str]:
    checks: list[Check] = list(verify._fit(explanation, evidence))
    assert len(checks) == 5
    return {check.name.split(":")[0] for check in checks if not check.is_passed}


@SCALES
def test_another_machine_s_last_bits_pass(scale: float) -> None:
    explanation, evidence = explained(scale)
    bits = 1 + 1e-13 * np.random.default_rng(0).choice([-1.0, 1.0], len(explanation.spectrum))
    there = times(explanation.spectrum, bits)
    fidelity = explanation.fidelity
    moved = replace(fidelity, r2=fidelity.r2 - 1e-12, value_full=fidelity.value_full * (1 + 1e-13))
    again = replace(explanation, spectrum=there, interactions=rank_interactions(there), fidelity=moved)
    assert failed(again, evidence) == set()


@SCALES
def test_what_was_changed_by_a_factor_is_caught(scale: float) -> None:
    explanation, evidence = explained(scale)
    forged = times(explanation.spectrum, 1.001)
    whole = replace(explanation, spectrum=forged, interactions=rank_interactions(forged))
    assert failed(whole, evidence) == {"check", "refit"}
    shown = replace(explanation, interactions=rank_interactions(forged))
    assert failed(shown, evidence) == {"the interactions shown follow from the spectrum"}


@SCALES
@pytest.mark.parametrize(("figure", "by"), [("r2", 1e-6), ("value_full", 0.0), ("noise_ceiling", 1e-6)])
def test_so_is_a_figure(figure: str, by: float, scale: float) -> None:
    """Shares by a millionth, whatever the unit; values by a thousandth of themselves."""
    explanation, evidence = explained(scale)
    stored = getattr(explanation.fidelity, figure)
    fidelity = replace(explanation.fidelity, **{figure: stored - by if by else 1.001 * stored})
    assert failed(replace(explanation, fidelity=fidelity), evidence) == {"refit"}
