"""Figures of trust on numbers that can be checked by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from spex_proxy.engine import fidelity


def test_r_squared():
    values = np.array([1.0, 2.0, 3.0])
    assert fidelity.r_squared(values, values) == 1.0
    assert fidelity.r_squared(values, np.full(3, 2.0)) == 0.0
    assert fidelity.r_squared(values, values[::-1]) == -3.0
    assert fidelity.r_squared(np.ones(3), values) == 0.0
    assert fidelity.r_squared(np.zeros(0), np.zeros(0)) == 0.0


def test_interval_holds_r2_is_seeded_and_narrows():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    predictions = values + 0.5 * rng.normal(size=400)
    low, high = fidelity.interval(values, predictions, 7)
    assert low < fidelity.r_squared(values, predictions) < high
    assert (low, high) == fidelity.interval(values, predictions, 7)
    assert (low, high) != fidelity.interval(values, predictions, 8)
    few = fidelity.interval(values[:20], predictions[:20], 7)
    assert high - low < few[1] - few[0]
    assert fidelity.interval(np.ones(5), np.zeros(5), 0) == (0.0, 0.0)
    assert fidelity.interval(np.zeros(0), np.zeros(0), 0) == (0.0, 0.0)


def test_drawing_in_parts_changes_no_bit(monkeypatch):
    rng = np.random.default_rng(1)
    values = rng.normal(size=300)
    predictions = values + rng.normal(size=300)
    whole = fidelity.interval(values, predictions, 5)
    for cells in (1, 700, 299_999):
        monkeypatch.setattr(fidelity, "CELLS", cells)
        assert fidelity.interval(values, predictions, 5) == whole


def test_many_masks_need_little_memory():
    """All at once took 1.7 GB for 32,768 masks."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=1 << 15)
    tracemalloc.start()
    try:
        low, high = fidelity.interval(values, values + rng.normal(size=len(values)), 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert low < high
    assert peak < 200e6


def test_noise():
    assert fidelity.noise_sigma(np.array([1.0, 3.0])) == pytest.approx(np.sqrt(2))
    assert fidelity.noise_sigma(np.array([1.0])) == 0.0
    values = np.array([-1.0, 1.0])
    assert fidelity.noise_ceiling(0.5, values) == 0.75
    assert fidelity.noise_ceiling(9.0, values) == 0.0
    assert fidelity.noise_ceiling(0.0, np.ones(2)) == 0.0


def test_interval_covers_the_truth():
    """Fits of one slope: R2 on the population is known."""
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=60)
        values = x + rng.normal(size=60)
        folds = np.arange(60) % 5
        slopes = [x[folds != f] @ values[folds != f] / (x[folds != f] @ x[folds != f]) for f in range(5)]
        low, high = fidelity.interval(values, x * np.array(slopes)[folds], seed)
        slope = x @ values / (x @ x)
        inside += low <= 1 - (1 + (1 - slope) ** 2) / 2 <= high
    assert 0.9 <= inside / 200 <= 0.99


@pytest.mark.parametrize("error", [0.0, 1.0], ids=["perfect", "one error"])
def test_interval_of_odd_predictions_is_a_number(error):
    values = np.arange(12.0)
    predictions = values.copy()
    predictions[3] += error
    low, high = fidelity.interval(values, predictions, 0)
    assert np.isfinite([low, high]).all()
    assert low <= 1 - error / 143 <= high
