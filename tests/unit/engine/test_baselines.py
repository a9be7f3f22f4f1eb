"""What others do, on games whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import baselines, draws, interactions, walsh
from spex_proxy.engine.baselines import SURROGATES
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.spectrum import Spectrum


def corner_and_uniform(n, count, seed=0):
    corner = np.array([[True] * n, [False] * n])
    return np.concatenate([corner, draws.uniform_masks(n, count - 2, seed)])


def rows_for(value, masks):
    return rows_of(Evidence(masks, value(masks), np.zeros(len(masks), dtype=np.int64)))


def linear(effects):
    return lambda masks: -3.0 + masks @ effects


@pytest.mark.parametrize("name", SURROGATES)
def test_a_linear_game_is_known_to_all_of_them(name):
    effects = np.array([2.0, -1.0, 0.0, 0.5, 0.0, 0.0, 1.5, 0.0])
    rows = rows_for(linear(effects), corner_and_uniform(8, 120))
    found = SURROGATES[name](rows, 0)
    # LIME's and the lassos' penalties shrink; what is large stays large, what is nothing stays nothing
    got = interactions.shapley_values(found.spectrum)
    assert got == pytest.approx(effects, abs=0.15)
    uniform = rows.values[rows.uniform]
    assert found.predictions.shape == uniform.shape
    assert 1 - ((uniform - found.predictions) ** 2).mean() / uniform.var() > 0.97


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 8), seed=st.integers(0, 999))
def test_kernelshap_on_all_masks_gives_the_shapley_values(n, seed):
    """Lundberg & Lee 2017, theorem 2."""
    truth = walsh.exact_transform(np.random.default_rng(seed).normal(size=1 << n))
    rows = rows_for(lambda masks: walsh.predict(truth, masks), walsh.all_masks(n))
    found = baselines.kernel_shap(rows)
    assert interactions.shapley_values(found) == pytest.approx(interactions.shapley_values(truth), abs=1e-8)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(6, 30), seed=st.integers(0, 99))
def test_kernelshap_is_efficient_on_any_masks(n, seed):
    values = np.random.default_rng(seed).normal(size=60)
    masks = corner_and_uniform(n, 60, seed)
    rows = rows_of(Evidence(masks, values[: len(masks)], np.zeros(len(masks), dtype=np.int64)))
    found = interactions.shapley_values(baselines.kernel_shap(rows))
    assert found.sum() == pytest.approx(rows.value_full - rows.value_empty, abs=1e-8)


def test_kernelshap_without_the_corner_is_refused():
    masks = draws.uniform_masks(8, 50, 0)
    rows = rows_of(Evidence(np.concatenate([masks, np.ones((1, 8), bool)]), np.arange(51.0), np.zeros(51, int)))
    with pytest.raises(BadEvidence, match="full and the empty mask"):
        baselines.kernel_shap(rows)


def test_only_order_two_sees_a_pair():
    truth = Spectrum.from_terms(12, [(), (0,), (3, 7)], [1.0, 0.5, 1.0])
    rows = rows_for(lambda masks: walsh.predict(truth, masks), corner_and_uniform(12, 300))
    shares = {}
    for name, fit in SURROGATES.items():
        predictions, values = fit(rows, 0).predictions, rows.values[rows.uniform]
        shares[name] = 1 - ((values - predictions) ** 2).mean() / values.var()
    assert shares.pop("order2") > 0.98
    assert max(shares.values()) < 0.35


def test_too_many_pairs_are_refused():
    masks = draws.uniform_masks(300, 40, 0)
    rows = rows_of(Evidence(np.concatenate([masks, np.ones((1, 300), bool)]), np.arange(41.0), np.zeros(41, int)))
    with pytest.raises(BadEvidence, match="at most 20000"):
        SURROGATES["order2"](rows, 0)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 40), count=st.integers(4, 200), seed=st.integers(0, 99))
def test_kernelshaps_design_comes_in_pairs_with_both_corners(n, count, seed):
    masks = baselines.shapley_masks(n, count, seed)
    assert len(masks) <= count
    assert masks[0].all()
    assert not masks[1].any()
    have = set(map(bytes, np.packbits(masks, axis=1)))
    assert len(have) == len(masks)
    assert all(bytes(row) in have for row in np.packbits(~masks, axis=1))
    assert np.array_equal(masks, baselines.shapley_masks(n, count, seed))


def test_small_and_large_sets_come_more_often():
    """Probability of size s proportional to 1 / (s (n - s))."""
    sizes = baselines.shapley_masks(30, 2000, 1).sum(axis=1)
    assert (np.minimum(sizes, 30 - sizes) <= 5).mean() > 0.4  # of uniform masks: .0003
