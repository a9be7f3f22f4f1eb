"""The fit as a whole, with its real trees: right, honest, and in little time."""

from __future__ import annotations

import numpy as np
import pytest

from spex_proxy.engine import designs, draws, fidelity, proxyspex, walsh
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe


def measure(game, n, budget, seed=0):
    plan = designs.plan(n, Recipe(budget=budget, seed=seed, replicates=1))
    return Evidence(plan.masks, game(plan.masks), plan.replicates)


@pytest.mark.slow
def test_out_of_fold_r2_is_that_of_fresh_masks(sparse_game):
    game = sparse_game(24, noise=0.5)
    rows = rows_of(measure(game, 24, 200))
    found = proxyspex.fit(rows, 0)
    fresh = draws.uniform_masks(24, 2000, seed=99)
    truly = fidelity.r_squared(game(fresh), walsh.predict(found.spectrum, fresh))
    claimed = fidelity.r_squared(rows.values[rows.uniform], found.predictions)
    assert claimed == pytest.approx(truly, abs=0.08)
    assert truly > 0.8


@pytest.mark.slow
def test_pure_noise_is_not_explained():
    rng = np.random.default_rng(3)
    masks = draws.uniform_masks(20, 80, 0)
    rows = rows_of(Evidence(masks, rng.normal(size=80), np.zeros(80, dtype=np.int64)))
    found = proxyspex.fit(rows, 0)
    assert fidelity.r_squared(rows.values, found.predictions) < 0.1


def test_large_offsets_and_small_scales_lose_nothing(sparse_game, small_trees):
    """xgboost works in float32; values may be -1e6 +- 1e-3."""
    game = sparse_game(12)
    evidence = measure(game, 12, 100)
    moved = Evidence(evidence.masks, 1e-3 * evidence.values - 1e6, evidence.replicates)
    one, other = proxyspex.fit(rows_of(evidence), 0), proxyspex.fit(rows_of(moved), 0)
    assert other.spectrum.constant == pytest.approx(1e-3 * one.spectrum.constant - 1e6)
    fresh = walsh.all_masks(12)
    a, b = walsh.predict(one.spectrum, fresh), (walsh.predict(other.spectrum, fresh) + 1e6) * 1e3
    assert fidelity.r_squared(a, b) > 0.999


def test_fewer_masks_than_players(sparse_game, small_trees):
    found = proxyspex.fit(rows_of(measure(sparse_game(200), 200, 40)), 0)
    assert np.isfinite(found.spectrum.coefficients).all()
    assert found.spectrum.constant == pytest.approx(-7.0, abs=1.0)


def test_one_odd_value_among_equals_is_survived(small_trees):
    masks = draws.uniform_masks(10, 30, 0)
    values = np.zeros(30)
    values[4] = 1.0
    found = proxyspex.fit(rows_of(Evidence(masks, values, np.zeros(30, dtype=np.int64))), 0)
    assert np.isfinite(found.spectrum.coefficients).all()
    assert np.isfinite(found.predictions).all()


def test_too_few_uniform_masks_are_refused():
    masks = draws.uniform_masks(10, 9, 0)
    with pytest.raises(BadEvidence, match="9 uniform masks"):
        proxyspex.fit(rows_of(Evidence(masks, np.arange(9.0), np.zeros(9, dtype=np.int64))), 0)


def test_folds_are_equal_and_only_uniform(sparse_game):
    rows = rows_of(measure(sparse_game(12), 12, 100))
    folds = proxyspex.assign_folds(rows.uniform, 5)
    assert (folds[~rows.uniform] == -1).all()
    counts = np.bincount(folds[rows.uniform])
    assert counts.max() - counts.min() <= 1


def test_how_many_threads_there_are_changes_no_bit(sparse_game, small_trees, monkeypatch):
    masks = draws.uniform_masks(12, 80, 0)
    rows = rows_of(Evidence(masks, sparse_game(12, noise=0.3)(masks), np.zeros(80, dtype=np.int64)))
    found = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(proxyspex, "THREADS", threads)
        found.append(proxyspex.fit(rows, 0))
    for other in found[1:]:
        assert other.spectrum.coefficients.tobytes() == found[0].spectrum.coefficients.tobytes()
        assert other.predictions.tobytes() == found[0].predictions.tobytes()
        assert other.how == found[0].how
