"""A plan is the same wherever and whenever it is made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import designs, draws, walsh
from spex_proxy.engine.conclude import conclude
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
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
    small, large = (draws.uniform_masks(n, count, seed) for count in (30, 500))
    assert np.array_equal(small, large[: len(small)])
    assert not draws.is_corner(large).any()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_all_masks_when_they_fit(n):
    plan = designs.plan(n, Recipe(budget=2 + 2**n, replicates=3))
    assert len(np.unique(plan.masks, axis=0)) == 2**n
    assert len(plan) == 2 + 2**n


def test_rounds_double_and_leave_one_outs_come_first_if_cheap():
    plan = designs.plan(32, Recipe(budget=256))
    assert np.bincount(plan.rounds).tolist() == [3 + 1 + 32 + 32, 32, 64, 92]
    assert (plan.masks[4:36].sum(axis=1) == 31).all()
    assert not draws.is_corner(designs.plan(33, Recipe(budget=256)).masks[4:]).any()


def test_uniform_masks_are_uniform_and_seeded():
    masks = draws.uniform_masks(70, 2000, 1)
    assert np.abs(masks.mean(axis=0) - 0.5).max() < 0.05
    assert not np.array_equal(masks, draws.uniform_masks(70, 2000, 2))


def test_the_stream_is_pinned():
    """A job resumed after an upgrade asks the masks that it would have asked before."""
    assert draws.raw_words(0, draws.MASKS, 2).tolist() == PINNED
    assert np.packbits(draws.uniform_masks(20, 2, 0), axis=1).tolist() == PINNED_MASKS


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


@settings(max_examples=30, deadline=None)
@given(n=st.integers(4, 100), seed=st.integers(0, 99), count=st.integers(12, 300))
def test_late_masks_begin_alike_in_groups_and_uniform_ones_stand_between(n, seed, count):
    masks, uniform = draws.late_masks(n, count, seed)
    more, _ = draws.late_masks(n, count + 50, seed)
    assert np.array_equal(masks, more[: len(masks)])
    assert len(np.unique(masks, axis=0)) == len(masks) <= count
    assert not draws.is_corner(masks).any()
    assert uniform[: min(len(masks), draws.MIN_UNIFORM)].sum() >= min(len(masks), draws.MIN_UNIFORM) - 2
    if n >= 20 and len(masks) == count >= 100:
        heads = np.unique(masks[~uniform][:, : n // 2], axis=0)
        assert len(heads) <= -(-(~uniform).sum() // draws.TAILS) + 1
        assert 0.2 < uniform.mean() < 0.4


def test_late_masks_are_uniform_one_by_one():
    masks, uniform = draws.late_masks(40, 4000, 3)
    assert np.abs(masks[~uniform].mean(axis=0) - 0.5).max() < 0.12  # the first half has an eighth as many draws
    assert np.abs(masks[~uniform][:, 20:].mean(axis=0) - 0.5).max() < 0.05


def test_of_a_late_plan_the_uniform_masks_judge():
    recipe = Recipe(design="late", budget=200)
    plan = designs.plan(24, recipe)
    _, uniform = draws.late_masks(24, 200 - 4 - 24, 0)
    assert np.array_equal(designs.fair(plan.masks, recipe)[28:], uniform)
    assert not designs.fair(plan.masks, recipe)[:28].any()
    assert np.bincount(plan.rounds)[0] == 28 + designs.FIRST_UNIFORM
    stranger = draws.uniform_masks(24, 400, 9)
    assert not designs.fair(stranger, recipe).all(), "a mask that the plan did not draw judges nothing"


@pytest.mark.parametrize("method", ["stack", "proxyspex"])
def test_a_late_plan_finds_the_game(method):
    recipe = Recipe(design="late", method=method, budget=400, target_r2=1.0)
    masks = designs.plan(20, recipe).masks
    x = masks.astype("f8")
    values = 3 * x[:, 2] - 2 * x[:, 15] + 4 * x[:, 3] * x[:, 17] + 2 * x[:, 12] * x[:, 18] + x[:, 0] * x[:, 1]
    replicates = np.zeros(len(masks), dtype=np.int64)
    replicates[:3] = range(3)
    fit = conclude(recipe, rows_of(Evidence(masks, values, replicates)))
    fresh = draws.uniform_masks(20, 500, 77)
    y = fresh.astype("f8")
    truth = 3 * y[:, 2] - 2 * y[:, 15] + 4 * y[:, 3] * y[:, 17] + 2 * y[:, 12] * y[:, 18] + y[:, 0] * y[:, 1]
    r2 = 1 - ((walsh.predict(fit.spectrum, fresh) - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert r2 > 0.95
    assert fit.fidelity.r2_low <= r2 + 0.02
