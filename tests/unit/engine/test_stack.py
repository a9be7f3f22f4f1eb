"""The stack: its members, its weights, its closed last step."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

from spex_proxy.engine import (
    conclude,
    designs,
    draws,
    fidelity,
    gaussian,
    lasso,
    members,
    posterior,
    proxyspex,
    stack,
    walsh,
)
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe


def measure(game, n, budget, seed=0):
    plan = designs.plan(n, Recipe(budget=budget, seed=seed, replicates=1))
    return Evidence(plan.masks, game(plan.masks), plan.replicates)


# ------------------------------------------------------------------------------------------------ the lasso


def test_lasso_path_meets_its_optimality_conditions():
    rng = np.random.default_rng(0)
    z = gaussian.signs(draws.uniform_masks(20, 50, 0))
    values = z[:, :4] @ np.array([1.0, -0.7, 0.3, 0.1]) + 0.3 * rng.normal(size=50) + 5.0
    strengths = lasso.lambdas(z, values)
    constants, slopes = lasso.path(z, values, strengths)
    assert not slopes[:, 0].any()
    for constant, slope, strength in zip(constants, slopes.T, strengths, strict=True):
        residual = values - constant - z @ slope
        gradient = z.T @ residual / 50
        assert abs(residual.mean()) < 1e-6
        assert np.abs(gradient).max() <= strength + 1e-4
        assert np.allclose(gradient[slope != 0], strength * np.sign(slope[slope != 0]), atol=1e-4)


def test_the_lasso_is_the_ridge_that_it_ends_as(sparse_game):
    problem, _, _ = proxyspex.problem_of(rows_of(measure(sparse_game(20, noise=0.3), 20, 90)), 0)
    member = members.Lasso(problem)
    constants, slopes = lasso.path(member.z, problem.values, lasso.lambdas(member.z, problem.values))
    found, _ = member.final(12)
    expected = constants[12] + member.z @ slopes[:, 12]
    assert 3 <= len(found.penalties) <= 21
    assert np.allclose(found.predict(problem.masks, problem.values, problem.masks), expected, atol=1e-3)


# ----------------------------------------------------------------------------------------- the Gaussian process


@pytest.mark.slow
def test_terms_that_are_dropped_count_as_noise(sparse_game, monkeypatch):
    """With nothing dropped the ridge is the posterior mean; with most dropped it must not chase what they explained."""
    game = sparse_game(40, noise=0.5)
    problem, _, _ = proxyspex.problem_of(rows_of(measure(game, 40, 150)), 0)
    fresh = draws.uniform_masks(40, 500, 9)

    def residual(terms):
        monkeypatch.setattr(proxyspex, "TERMS", terms)
        found, _ = members.Gaussian(problem).final(0)
        truth = (game(fresh) - game(problem.masks).mean()) / game(problem.masks).std()
        return np.mean((truth - found.predict(problem.masks, problem.values, fresh)) ** 2)

    assert residual(100) < 1.2 * residual(3000)


@pytest.mark.parametrize("n", [3, 6])
def test_with_all_terms_the_ridge_is_the_posterior_mean(n, sparse_game):
    masks = walsh.all_masks(n)
    values = np.random.default_rng(n).normal(size=len(masks))
    given = np.arange(len(masks)), np.arange(n)
    problem = proxyspex.Problem(masks, values, np.zeros(len(masks), dtype=np.int64), 0, *given)
    member = members.Gaussian(problem)
    found, _ = member.final(0)
    prior = gaussian.learn(member.z[member.order], values[member.order])
    seen = posterior.condition(member.z, values, prior)
    # the constant is free in the ridge and has a prior in the process
    difference = found.predict(masks, values, masks) - posterior.predict(seen, member.z)
    assert np.ptp(difference) < 1e-3 * np.ptp(values)


# ---------------------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("seed", range(5))
def test_mixture_is_the_best_on_the_simplex(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=40)
    predictions = values[:, None] * rng.uniform(0, 1, 3) + 0.5 * rng.normal(size=(40, 3))
    beliefs = np.array([0.6, 0.4, 0.0])
    weights = stack.mixture(predictions, values, beliefs)
    error = ((predictions - values[:, None]) ** 2).mean(axis=0).min()

    def cost(w):
        return ((values - predictions @ w) ** 2).sum() + stack.BELIEF_ROWS * error * ((w - beliefs) ** 2).sum()

    grid = [np.array([a, b, 1 - a - b]) for a, b in itertools.product(np.linspace(0, 1, 41), repeat=2) if a + b <= 1]
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert cost(weights) <= min(cost(w) for w in grid) + 1e-6


def test_weights_fall_back_on_the_mean_when_members_only_hurt():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    predictions = np.column_stack([3 * rng.normal(size=(400, 3)), np.zeros(400)])
    assert stack.mixture(predictions, values, np.array([0.6, 0.4, 0, 0]))[3] > 0.8


# ------------------------------------------------------------------------------------------------ the whole


@pytest.mark.slow
def test_out_of_fold_r2_is_that_of_fresh_masks(sparse_game):
    game = sparse_game(24, noise=0.5)
    rows = rows_of(measure(game, 24, 200))
    found = stack.fit(rows, 0)
    fresh = draws.uniform_masks(24, 2000, seed=99)
    truly = fidelity.r_squared(game(fresh), walsh.predict(found.spectrum, fresh))
    claimed = fidelity.r_squared(rows.values[rows.uniform], found.predictions)
    assert claimed == pytest.approx(truly, abs=0.08)
    assert truly > 0.83


def test_every_held_out_prediction_ignores_its_own_value(sparse_game, small_trees):
    evidence = measure(sparse_game(12, noise=0.2), 12, 60)
    problem, _, _ = proxyspex.problem_of(rows_of(evidence), 0)
    inside = problem.folds == 2
    changed = np.where(inside, 1000.0, problem.values)
    other = dataclasses.replace(problem, values=changed)
    for kind in (members.Gaussian, members.Lasso, members.Constant):
        assert np.array_equal(kind(problem).held_out(2), kind(other).held_out(2))


def test_combined_is_the_weighted_sum_of_its_members(sparse_game, small_trees):
    rows = rows_of(measure(sparse_game(14, noise=0.2), 14, 90))
    found = stack.fit(rows, 0)
    how = json.loads(json.dumps(found.how, allow_nan=False))
    assert np.array_equal(stack.combined(found.spectrum.supports, how["members"], rows), found.spectrum.coefficients)
    parts = [
        member["weight"]
        * members.Ridge(found.spectrum.supports[member["terms"]], np.array(member["penalties"])).predict(
            rows.masks, rows.values, rows.masks
        )
        for member in how["members"]
    ]
    assert np.allclose(np.sum(parts, axis=0), walsh.predict(found.spectrum, rows.masks), atol=1e-9)
    assert sum(member["weight"] for member in how["members"]) == pytest.approx(1.0)


@pytest.mark.parametrize("broken", [[], [{"name": "x"}], [{"weight": 1.0, "terms": [7], "penalties": [0.0]}]])
def test_a_stack_that_does_not_fit_its_support_is_refused(broken, sparse_game):
    rows = rows_of(measure(sparse_game(6), 6, 40))
    with pytest.raises((ValueError, KeyError)):
        stack.combined(np.zeros((1, 1), dtype=np.uint64), broken, rows)


@pytest.mark.slow
def test_large_offsets_and_small_scales_lose_nothing(sparse_game, small_trees):
    evidence = measure(sparse_game(12), 12, 100)
    moved = Evidence(evidence.masks, 1e-3 * evidence.values - 1e6, evidence.replicates)
    one, other = stack.fit(rows_of(evidence), 0), stack.fit(rows_of(moved), 0)
    fresh = walsh.all_masks(12)
    a, b = walsh.predict(one.spectrum, fresh), (walsh.predict(other.spectrum, fresh) + 1e6) * 1e3
    assert fidelity.r_squared(a, b) > 0.999


@pytest.mark.slow
@pytest.mark.parametrize(("n", "budget"), [(200, 40), (5, 20), (70, 60)])
def test_few_masks_and_few_or_many_players(n, budget, sparse_game, small_trees):
    found = stack.fit(rows_of(measure(sparse_game(n), n, budget)), 0)
    assert np.isfinite(found.spectrum.coefficients).all()
    assert found.spectrum.constant == pytest.approx(-7.0, abs=1.0)


def test_one_odd_value_among_equals_is_survived(small_trees):
    masks = draws.uniform_masks(10, 30, 0)
    values = np.zeros(30)
    values[4] = 1.0
    found = stack.fit(rows_of(Evidence(masks, values, np.zeros(30, dtype=np.int64))), 0)
    assert np.isfinite(found.spectrum.coefficients).all()
    assert np.isfinite(found.predictions).all()


def test_too_few_uniform_masks_are_refused():
    masks = draws.uniform_masks(10, 9, 0)
    with pytest.raises(BadEvidence, match="9 uniform masks"):
        stack.fit(rows_of(Evidence(masks, np.arange(9.0), np.zeros(9, dtype=np.int64))), 0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["proxyspex", "stack"])
def test_renumbering_the_players_renumbers_the_spectrum(method):
    """Random values, so that nothing is equal; real trees, real folds."""
    rng = np.random.default_rng(4)
    n = 15
    masks = designs.plan(n, Recipe(budget=90, replicates=2)).masks
    values = masks[:, 0] - 0.7 * masks[:, 3] * masks[:, 7] + 0.3 * rng.normal(size=len(masks))
    values[masks.all(axis=1)] = 0.25
    replicates = np.zeros(len(masks), dtype=np.int64)
    replicates[1] = 1
    renumbered = rng.permutation(n)  # player i of the first game is player renumbered[i] of the second
    moved = np.empty_like(masks)
    moved[:, renumbered] = masks
    first, second = (
        conclude.conclude(Recipe(method=method), rows_of(Evidence(m, values, replicates))) for m in (masks, moved)
    )
    expected = {tuple(sorted(renumbered[list(term)])): c for term, c in terms_of(first.spectrum)}
    found = dict(terms_of(second.spectrum))
    assert found.keys() == expected.keys()
    assert max(abs(found[term] - expected[term]) for term in found) < 1e-9
    assert dataclasses.astuple(second.fidelity) == pytest.approx(dataclasses.astuple(first.fidelity), abs=1e-9)


def terms_of(spectrum):
    return list(zip(spectrum.players(), spectrum.coefficients, strict=True))


def test_both_methods_can_be_named(sparse_game, small_trees):
    rows = rows_of(measure(sparse_game(12, noise=0.1), 12, 60))
    for method in ("proxyspex", "stack"):
        assert conclude.conclude(Recipe(method=method), rows).how["method"] == method
