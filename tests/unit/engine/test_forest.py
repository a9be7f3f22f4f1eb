"""An ensemble's spectrum is the ensemble."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import forest, walsh


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 9), depth=st.integers(1, 6), base=st.sampled_from([0.0, -300.0, 0.7]), seed=st.integers(0, 999))
def test_spectrum_equals_the_boosters_own_prediction_everywhere(n, depth, base, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((40, n)) < 0.5
    values = rng.normal(size=40) + masks[:, 0] * masks[:, -1] + base
    data = xgboost.DMatrix(masks.astype(np.float32), values)
    booster = xgboost.train({"max_depth": depth, "eta": 0.3, "nthread": 1, "base_score": base}, data, 12)
    everything = walsh.all_masks(n)
    expected = booster.predict(xgboost.DMatrix(everything.astype(np.float32)))
    grown = forest.read_model(bytes(booster.save_raw("json")), n)
    spectrum = forest.fourier(grown)
    assert np.allclose(walsh.predict(spectrum, everything), expected, atol=2e-5 * (1 + abs(base)))
    assert spectrum.constant == pytest.approx(expected.mean(), abs=2e-5 * (1 + abs(base)))
    assert spectrum.orders().max() <= depth


def test_xgboosts_own_base_score_reaches_the_constant():
    masks = walsh.all_masks(3)
    booster = xgboost.train({"max_depth": 1}, xgboost.DMatrix(masks.astype(np.float32), masks[:, 0] - 50.0), 1)
    spectrum = forest.fourier(forest.read_model(bytes(booster.save_raw("json")), 3))
    assert spectrum.constant == pytest.approx(-49.5, abs=1e-4)


def test_first_trees_are_the_ensemble_after_so_many_rounds():
    rng = np.random.default_rng(0)
    masks = rng.random((60, 70)) < 0.5
    values = masks[:, 0] * 1.0 - masks[:, 66] * masks[:, 5]
    long, curve = forest.grow(masks, values, forest.Shape(3, 0.3, 20), 5, (masks, values))
    short, nothing = forest.grow(masks, values, forest.Shape(3, 0.3, 7), 5)
    assert curve.shape == (20,)
    assert nothing.shape == (0,)
    cut, whole = forest.fourier(long.first(7)), forest.fourier(short)
    assert np.array_equal(cut.supports, whole.supports)
    assert np.array_equal(cut.coefficients, whole.coefficients)
    assert curve[6] == pytest.approx(np.mean((walsh.predict(cut, masks) - values) ** 2), rel=1e-4)


def handmade(trees: list[dict[str, list[float]]]) -> bytes:
    model = {"learner_model_param": {"base_score": "1E0"}, "gradient_booster": {"model": {"trees": trees}}}
    return json.dumps({"learner": model}).encode()


def test_repeated_players_and_odd_thresholds():
    tree = {
        "left_children": [1, 3, 5, -1, -1, -1, -1],
        "right_children": [2, 4, 6, -1, -1, -1, -1],
        "split_indices": [0, 0, 1, 0, 0, 0, 0],  # player 0 is asked twice on the left
        "split_conditions": [1.0, 0.5, 7.0, 10.0, 999.0, 20.0, 999.0],  # player 1: 0 and 1 both go left
    }
    spectrum = forest.fourier(forest.read_model(handmade([tree]), 2))
    assert walsh.predict(spectrum, np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=bool)).tolist() == [11, 11, 21, 21]


def test_depth_is_capped():
    with pytest.raises(ValueError, match="depth 9"):
        forest.grow(np.zeros((2, 1), dtype=bool), np.zeros(2), forest.Shape(9, 0.1, 1), 0)
