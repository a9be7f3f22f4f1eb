"""Figures of trust on numbers that can be checked by hand."""

from __future__ import annotations

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


def test_noise():
    assert fidelity.noise_sigma(np.array([1.0, 3.0])) == pytest.approx(np.sqrt(2))
    assert fidelity.noise_sigma(np.array([1.0])) == 0.0
    values = np.array([-1.0, 1.0])
    assert fidelity.noise_ceiling(0.5, values) == 0.75
    assert fidelity.noise_ceiling(9.0, values) == 0.0
    assert fidelity.noise_ceiling(0.0, np.ones(2)) == 0.0
