"""Standard errors: those of the Bayesian model that a ridge is, and of the stack."""

from __future__ import annotations

import numpy as np
import pytest

from spex_proxy.engine import designs, draws, regression, stack, uncertainty, walsh
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe


def drawn(m, k, seed):
    rng = np.random.default_rng(seed)
    masks = draws.uniform_masks(12, m, seed)
    supports = np.arange(k, dtype=np.uint64)[:, None]
    return walsh.characters(masks, supports), np.concatenate([[0.0], rng.uniform(0.3, 30.0, k - 1)]), rng


@pytest.mark.parametrize(("m", "k"), [(40, 12), (40, 90), (30, 31)])
def test_variances_are_the_inverse_of_the_normal_equations(m, k):
    characters, penalties, _ = drawn(m, k, 0)
    expected = np.diag(np.linalg.inv(characters.T @ characters + np.diag(penalties)))
    assert np.allclose(uncertainty.variances(characters, penalties), expected, rtol=1e-7)


@pytest.mark.parametrize(("m", "k"), [(60, 20), (40, 90)])
def test_coefficients_of_the_model_lie_within_their_errors_95_times_in_100(m, k):
    characters, penalties, rng = drawn(m, k, 1)
    noise = 0.7
    errors = noise * np.sqrt(uncertainty.variances(characters, penalties))
    inside = []
    for _ in range(300):
        true = np.concatenate([[3.0], noise / np.sqrt(penalties[1:]) * rng.normal(size=k - 1)])
        values = characters @ true + noise * rng.normal(size=m)
        inside.append(np.abs(regression.closed_form(characters, values, penalties) - true) < 1.96 * errors)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)
    assert np.mean(inside, axis=0)[0] == pytest.approx(0.95, abs=0.05)


def test_members_that_disagree_are_less_sure():
    coefficients, relative = np.array([[1.0, 2.0], [1.0, 0.0]]), np.array([[0.01, 0.01], [0.01, 0.0]])
    agreed, disputed = uncertainty.mixture_errors(coefficients, relative, [0.5, 0.5], 1.0, 10_000)
    assert agreed == pytest.approx(np.sqrt(0.5 * 0.01 / 1.02 + 0.5 * 0.01 / 1.01))
    assert disputed == pytest.approx(np.sqrt(0.5 * 0.01 / 1.02 + 1.0))


def test_no_error_is_smaller_than_what_the_masks_can_tell():
    errors = uncertainty.mixture_errors(np.zeros((1, 2)), np.array([[1e-9, 1.0]]), [1.0], 4.0, 100)
    assert errors == pytest.approx([0.2, np.sqrt(2.0)])


def test_the_stack_states_an_error_for_every_term(sparse_game, small_trees):
    plan = designs.plan(14, Recipe(budget=100, replicates=1))
    game = sparse_game(14, noise=0.4)
    found = stack.fit(rows_of(Evidence(plan.masks, game(plan.masks), plan.replicates)), 0)
    errors = found.spectrum.standard_errors
    assert errors is not None
    assert errors.shape == found.spectrum.coefficients.shape
    true = dict(zip([(0,), (1,), (2,)], [1.0, -0.8, 0.5], strict=True))
    for term, coefficient, error in zip(found.spectrum.players(), found.spectrum.coefficients, errors, strict=True):
        assert error >= np.sqrt(found.how["error"] / 100) * (1 - 1e-12)
        if term in true:
            assert abs(coefficient - true[term]) < 3 * error
