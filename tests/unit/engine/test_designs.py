"""A plan is the same wherever and whenever it is made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import designs
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.recipe import Recipe


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 140), budget=st.integers(20, 600), r=st.integers(1, 4), seed=st.integers(0, 2**70))
def test_every_question_once_within_the_budget(n, budget, r, seed):
    plan = designs.plan(n, Recipe(budget=budget, replicates=r, seed=seed))
    assert len(plan) <= budget
    assert plan.masks.shape == (len(plan), n)
    assert plan.masks[:r].all()
    assert not plan.masks[r].any()
    assert plan.replicates[:r].tolist() == list(range(r))
    assert not plan.replicates[r:].any()
    assert len(np.unique(plan.masks[r - 1 :], axis=0)) == len(plan) - r + 1
    assert (np.diff(plan.rounds) >= 0).all()
    assert plan.rounds[0] == 0


@settings(max_examples=20, deadline=None)
@given(n=st.integers(4, 100), seed=st.integers(0, 99))
def test_a_larger_budget_begins_with_the_same_uniform_masks(n, seed):
    small, large = (designs.uniform_masks(n, count, seed) for count in (30, 500))
    assert np.array_equal(small, large[: len(small)])
    assert not designs.is_corner(large).any()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_all_masks_when_they_fit(n):
    plan = designs.plan(n, Recipe(budget=2 + 2**n, replicates=3))
    assert len(np.unique(plan.masks, axis=0)) == 2**n
    assert len(plan) == 2 + 2**n


def test_rounds_double_and_leave_one_outs_come_first_if_cheap():
    plan = designs.plan(32, Recipe(budget=256))
    assert np.bincount(plan.rounds).tolist() == [3 + 1 + 32 + 32, 32, 64, 92]
    assert (plan.masks[4:36].sum(axis=1) == 31).all()
    assert not designs.is_corner(designs.plan(33, Recipe(budget=256)).masks[4:]).any()


def test_uniform_masks_are_uniform_and_seeded():
    masks = designs.uniform_masks(70, 2000, 1)
    assert np.abs(masks.mean(axis=0) - 0.5).max() < 0.05
    assert not np.array_equal(masks, designs.uniform_masks(70, 2000, 2))


def test_the_stream_is_pinned():
    """A job resumed after an upgrade asks the masks that it would have asked before."""
    assert designs.raw_words(0, designs.MASKS, 2).tolist() == PINNED
    assert np.packbits(designs.uniform_masks(20, 2, 0), axis=1).tolist() == PINNED_MASKS


PINNED = [11749869230777074271, 4976686463289251617]
PINNED_MASKS = [[250, 65, 64], [132, 235, 144]]


def test_budgets_that_are_too_small_say_what_would_do():
    with pytest.raises(BadEvidence, match="at least 14 masks, not 13"):
        designs.plan(20, Recipe(budget=13))
    designs.plan(20, Recipe(budget=14))
    with pytest.raises(BadEvidence, match="at least 4 masks, not 3"):
        designs.plan(1, Recipe(budget=3))
    assert len(designs.plan(1, Recipe(budget=4))) == 4
    with pytest.raises(BadEvidence, match="without players"):
        designs.plan(0, Recipe())
    with pytest.raises(ValueError, match="replicates is 0"):
        designs.plan(3, Recipe(replicates=0))
    with pytest.raises(ValueError, match="seed is -1"):
        designs.plan(3, Recipe(seed=-1))
