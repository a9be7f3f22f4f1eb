"""Stored numbers follow from stored evidence, and one changed value shows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spex_proxy.engine import designs, verify_fit
from spex_proxy.engine.decide import Fit, decide
from spex_proxy.facts.errors import BadEvidence, VerificationFailed
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

CASES = {
    "proxyspex": (14, Recipe(budget=70, method="proxyspex")),
    "stack": (14, Recipe(budget=70, method="stack")),
    "exact": (4, Recipe(budget=18)),
    "constant": (14, Recipe(budget=70)),
}


@pytest.fixture(params=CASES)
def stored(request, sparse_game, small_trees):
    n, recipe = CASES[request.param]
    plan = designs.plan(n, recipe)
    value = sparse_game(n, noise=0.1, scale=1e-6 if request.param == "constant" else 1.0)(plan.masks)
    evidence = Evidence(plan.masks, value + 0.1 * (-1.0) ** plan.replicates, plan.replicates)
    fit = decide(recipe, evidence)
    assert isinstance(fit, Fit)
    assert fit.how["method"] == request.param
    return recipe, evidence, fit


def test_check_agrees_after_a_trip_through_json_and_shuffling(stored):
    recipe, evidence, fit = stored
    order = np.random.default_rng(0).permutation(len(evidence))
    shuffled = Evidence(evidence.masks[order], evidence.values[order], evidence.replicates[order])
    how = json.loads(json.dumps(fit.how, allow_nan=False))
    assert verify_fit.check(fit.spectrum, how, recipe, shuffled) < 1e-12


def test_every_single_changed_value_shows(stored):
    recipe, evidence, fit = stored
    for row in range(len(evidence)):
        values = evidence.values.copy()
        values[row] += 1e-4
        changed = Evidence(evidence.masks, values, evidence.replicates)
        assert verify_fit.check(fit.spectrum, fit.how, recipe, changed) > 100 * verify_fit.TOLERANCE


def test_a_changed_coefficient_or_sigma_shows(stored):
    recipe, evidence, fit = stored
    fit.spectrum.coefficients[-1] += 1e-6
    assert verify_fit.check(fit.spectrum, fit.how, recipe, evidence) > 5e-7
    fit.spectrum.coefficients[-1] -= 1e-6
    how = {**fit.how, "noise_sigma": fit.how["noise_sigma"] + 1e-6}
    assert verify_fit.check(fit.spectrum, how, recipe, evidence) > 5e-7


@pytest.mark.parametrize("scale", [1e6, 1.0, 1e-10])
def test_what_rounding_explains_goes_with_the_values(stored, scale):
    """Another machine's last bits pass in any unit; a coefficient that was changed by a factor does in none."""
    recipe, evidence, fit = stored
    scaled = Evidence(evidence.masks, scale * evidence.values, evidence.replicates)
    allowed = verify_fit.tolerance(scaled)
    how = {**fit.how, "noise_sigma": scale * fit.how["noise_sigma"]}
    last_bits = 1 + 1e-12 * np.random.default_rng(0).choice([-1.0, 1.0], len(fit.spectrum))
    true = scale * fit.spectrum.coefficients
    there = Spectrum(fit.spectrum.n_players, fit.spectrum.supports, true * last_bits)
    assert verify_fit.check(there, how, recipe, scaled) <= allowed
    for number in np.argsort(-np.abs(true))[:3]:
        coefficients = true.copy()
        coefficients[number] *= 1.001
        forged = Spectrum(fit.spectrum.n_players, fit.spectrum.supports, coefficients)
        assert verify_fit.check(forged, how, recipe, scaled) > allowed


def test_tolerance_knows_how_far_from_0_the_values_are():
    masks, numbers = np.eye(3, dtype=bool), np.zeros(3, dtype=np.int64)
    assert verify_fit.tolerance(Evidence(masks, np.array([-1.0, 0.0, 1.0]), numbers)) == pytest.approx(1e-9, rel=1e-4)
    far = verify_fit.tolerance(Evidence(masks, 1e6 + np.array([-1.0, 0.0, 1.0]), numbers))
    assert far == pytest.approx(1e-9 + 1e-8, rel=1e-4)
    assert verify_fit.tolerance(Evidence.empty(3)) == 0.0


def test_refit_is_the_same_bit_for_bit(stored):
    recipe, evidence, fit = stored
    again = verify_fit.refit(recipe, evidence)
    assert np.array_equal(again.spectrum.supports, fit.spectrum.supports)
    assert np.array_equal(again.spectrum.coefficients, fit.spectrum.coefficients)
    assert again.fidelity == fit.fidelity
    assert again.verdict == fit.verdict


def test_a_lost_mask_another_seed_or_torn_how_is_named(stored):
    recipe, evidence, fit = stored
    less = Evidence(evidence.masks[:-1], evidence.values[:-1], evidence.replicates[:-1])
    with pytest.raises(VerificationFailed, match="are stored"):
        verify_fit.check(fit.spectrum, fit.how, recipe, less)
    with pytest.raises(VerificationFailed, match="seed"):
        verify_fit.check(fit.spectrum, fit.how, Recipe(seed=5, method=recipe.method), evidence)
    with pytest.raises(VerificationFailed, match="magic"):
        verify_fit.check(fit.spectrum, {**fit.how, "method": "magic"}, recipe, evidence)
    wrong = "stack" if fit.how["method"] in ("exact", "constant") else "exact"
    with pytest.raises(VerificationFailed):
        verify_fit.check(fit.spectrum, {**fit.how, "method": wrong}, recipe, evidence)
    narrower = Evidence(evidence.masks[:, 1:], evidence.values, np.arange(len(evidence)))
    with pytest.raises(VerificationFailed, match="players"):
        verify_fit.check(fit.spectrum, fit.how, recipe, narrower)


def test_bad_evidence_stays_bad_evidence(stored):
    recipe, evidence, fit = stored
    values = evidence.values.copy()
    values[0] = np.nan
    with pytest.raises(BadEvidence, match="row 0 "):
        verify_fit.check(fit.spectrum, fit.how, recipe, Evidence(evidence.masks, values, evidence.replicates))
