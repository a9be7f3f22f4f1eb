"""Errors near the full mask: the closed form against refits, and what is said where there is nothing to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.engine import near, regression, walsh
from spex_proxy.engine.conclude import conclude
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe


@given(m=st.integers(2, 12), k=st.integers(1, 16), seed=st.integers(0, 1000))
def test_leaving_a_row_out_equals_fitting_the_others(m, k, seed):
    generator = np.random.default_rng(seed)
    characters = np.column_stack([np.ones(m), generator.choice([-1.0, 1.0], size=(m, k - 1))])
    values, penalties = generator.normal(size=m), np.concatenate([[0.0], generator.uniform(0.01, 5.0, size=k - 1)])
    found = regression.leave_one_out(characters, values, penalties)
    for row in range(m):
        others = np.arange(m) != row
        alone = regression.closed_form(characters[others], values[others], penalties)
        assert found[row] == pytest.approx(float(characters[row] @ alone), abs=1e-7)


def evidence_of(n, game, uniform=60, seed=0):
    generator = np.random.default_rng(seed)
    masks = np.concatenate([np.ones((2, n)), np.zeros((1, n)), 1 - np.eye(n), generator.random((uniform, n)) < 0.5])
    masks = np.unique(masks[1:].astype(np.bool_), axis=0)
    masks = np.concatenate([np.ones((1, n), dtype=np.bool_), masks[~masks.all(axis=1)]])
    return Evidence(masks, game(masks), np.zeros(len(masks), dtype=np.int64))


@pytest.mark.usefixtures("small_trees")
@pytest.mark.parametrize("method", ["proxyspex", "stack"])
def test_every_method_says_how_well_it_does_near_the_full_mask(sparse_game, method):
    rows = rows_of(evidence_of(9, sparse_game(9), uniform=150))
    found = conclude(Recipe(method=method), rows)
    said = found.how["near"]
    full = sparse_game(9)(np.ones((1, 9), dtype=np.bool_))[0]
    changes = sparse_game(9)(~np.eye(9, dtype=np.bool_)) - full
    assert said["masks"] == 9
    assert said["judged"] == "left out"
    assert said["typical"] == pytest.approx(float(np.sqrt((changes**2).mean())))
    assert 0.8 < said["r2"] <= 1.0
    # a prediction that never saw a row is worse than the fit that did
    shown = walsh.predict(found.spectrum, rows.masks)[near.is_near(rows.masks)]
    fitted = np.sqrt(((shown - rows.values[near.is_near(rows.masks)]) ** 2).mean())
    assert said["rmse"] > fitted


def test_where_everything_was_measured_only_noise_is_left(sparse_game):
    masks = walsh.all_masks(5)
    rows = rows_of(Evidence(masks, sparse_game(5)(masks), np.zeros(32, dtype=np.int64)))
    found = near.near(conclude(Recipe(), rows).spectrum, {"method": "exact"}, rows, sigma=0.1)
    assert found is not None
    assert found.judged == "repeated"
    assert found.rmse == pytest.approx(0.1 * np.sqrt(2))


def test_without_leave_one_outs_nothing_is_claimed(sparse_game):
    whole = evidence_of(12, sparse_game(12))
    kept = whole.masks.sum(axis=1)
    some = (kept == 12) | (kept < 11)
    rows = rows_of(Evidence(whole.masks[some], whole.values[some], whole.replicates[some]))
    spectrum = conclude(Recipe(), rows).spectrum
    assert near.near(spectrum, {"penalties": [0.0]}, rows, 0.0) is None


@given(n=st.integers(1, 60))
def test_one_removed_player_is_near_and_the_full_mask_is_not(n):
    masks = np.concatenate([np.ones((1, n), dtype=np.bool_), ~np.eye(n, dtype=np.bool_)])
    found = near.is_near(masks)
    assert not found[0]
    assert found[1:].all()
