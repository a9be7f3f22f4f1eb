"""Deletion and insertion, Removal and Recovery, on games whose answer is known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import curves, walsh
from spex_proxy.facts.spectrum import Spectrum


def exact(values):
    return walsh.exact_transform(np.asarray(values, dtype=np.float64))


def curve(spectrum, masks):
    return curves.Curve(masks, walsh.predict(spectrum, masks))


def test_one_player_that_is_everything():
    spectrum = Spectrum.from_terms(4, [(), (2,)], [1.0, -1.0])  # v = 2 m_2
    order = curves.importance(spectrum)
    assert order[0] == 2
    assert curve(spectrum, curves.deletion_masks(order)).values == pytest.approx([2, 0, 0, 0, 0])
    assert curve(spectrum, curves.deletion_masks(order)).area == pytest.approx(0.125)
    assert curve(spectrum, curves.insertion_masks(order)).area == pytest.approx(0.875)


def test_where_the_full_mask_is_worth_less_the_order_follows():
    spectrum = Spectrum.from_terms(3, [(), (0,), (1,)], [0.0, 2.0, -0.5])  # keeping 0 lowers, keeping 1 raises
    assert curves.importance(spectrum)[0] == 0
    assert curve(spectrum, curves.insertion_masks(curves.importance(spectrum))).area > 0.5


def test_a_flat_game_has_no_area():
    spectrum = Spectrum.from_terms(3, [()], [5.0])
    assert np.isnan(curve(spectrum, curves.deletion_masks(curves.importance(spectrum))).area)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 999))
def test_masks_go_one_player_at_a_time_from_end_to_end(n, seed):
    order = np.random.default_rng(seed).permutation(n)
    inserted, deleted = curves.insertion_masks(order), curves.deletion_masks(order)
    assert np.array_equal(inserted, ~deleted)
    assert inserted.sum(axis=1).tolist() == list(range(n + 1))
    assert all(inserted[r + 1, order[r]] and not inserted[r, order[r]] for r in range(n))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 7), seed=st.integers(0, 999), r=st.integers(0, 2))
def test_no_other_set_of_that_size_moves_the_value_further(n, seed, r):
    spectrum = exact(np.random.default_rng(seed).normal(size=1 << n))
    mask = curves.removal_mask(spectrum, r)
    assert (~mask).sum() == r
    full = walsh.predict(spectrum, np.ones((1, n), bool))[0]
    every = np.ones((len(list(combinations(range(n), r))), n), dtype=bool)
    for row, lost in zip(every, combinations(range(n), r), strict=True):
        row[list(lost)] = False
    moved = np.abs(walsh.predict(spectrum, every) - full)
    assert abs(walsh.predict(spectrum, mask[None])[0] - full) == pytest.approx(moved.max())


def test_removal_and_recovery_are_their_definitions():
    assert curves.removal(-4.0, -6.0) == 0.5
    assert np.isnan(curves.removal(0.0, 1.0))
    spectrum = Spectrum.from_terms(5, [(), (0,), (1, 2), (3,)], [9.0, 3.0, 2.0, 1.0])
    assert curves.recovery(spectrum, {0, 1}, 1) == 1.0
    assert curves.recovery(spectrum, {0, 1}, 2) == 0.75
    assert curves.recovery(spectrum, {0, 1}, 3) == 0.5
    assert curves.recovery(spectrum, {0, 1}, 10) == 0.5
    with pytest.raises(ValueError, match="r is 0"):
        curves.recovery(spectrum, {0}, 0)
