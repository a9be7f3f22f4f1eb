"""The closed form is the minimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.engine import regression


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_gradient_vanishes_in_primal_and_dual(m, k, seed):
    rng = np.random.default_rng(seed)
    characters = np.where(rng.random((m, k)) < 0.5, -1.0, 1.0)
    characters[:, 0] = 1.0
    values, penalties = rng.normal(size=m) - 100, np.exp(rng.normal(size=k))
    penalties[0] = 0.0
    found = regression.closed_form(characters, values, penalties)
    gradient = characters.T @ (characters @ found - values) + penalties * found
    assert np.abs(gradient).max() < 1e-8


@given(st.integers(2, 30), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_path_is_the_closed_form_for_each_strength(m, k, seed):
    rng = np.random.default_rng(seed)
    characters = np.where(rng.random((m + 5, k)) < 0.5, -1.0, 1.0)
    characters[:, 0] = 1.0
    values, prior, strengths = rng.normal(size=m), rng.random(k - 1) + 0.01, np.array([0.1, 3.0])
    path = regression.path(characters[:m], values, prior, strengths, characters[m:])
    for row, strength in zip(path, strengths, strict=True):
        penalties = np.concatenate([[0.0], strength / prior])
        expected = characters[m:] @ regression.closed_form(characters[:m], values, penalties)
        assert np.allclose(row, expected, atol=1e-8)


def test_prior_prefers_the_strong_and_forgets_nobody():
    prior = regression.prior_variances(np.array([-4.0, 1.0, 0.0]))
    assert prior.sum() == pytest.approx(1.0)
    assert prior[0] == pytest.approx(4 * prior[1])
    assert prior[2] == pytest.approx(1e-6 * prior[0])
    assert regression.prior_variances(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("values", "penalties"),
    [(np.zeros(2), np.zeros(2)), (np.zeros(3), np.array([1.0, 1.0])), (np.zeros(3), np.array([0.0, 0.0]))],
)
def test_bad_input_is_refused(values, penalties):
    with pytest.raises(ValueError, match="penalties"):
        regression.closed_form(np.ones((3, 2)), values, penalties)
