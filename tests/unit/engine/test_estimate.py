"""Estimates of a population from a sample whose members' probabilities are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.engine import estimate
from spex_proxy.engine.estimate import count, mean, share, wilson

TRIES = 600


def drawn(seed: int, size: int, value: str) -> tuple[np.ndarray, np.ndarray]:
    """A population whose members that matter are drawn more often: unweighted, the sample lies."""
    rng = np.random.default_rng(seed)
    heavy = rng.random(size) < 0.2
    chances = np.where(heavy, 0.5, 0.05)
    values = rng.normal(np.where(heavy, 3.0, 1.0), 1.0)
    return (values > 2.5 if value == "share" else values), chances


@pytest.mark.parametrize(("kind", "size"), [("share", 4000), ("mean", 4000), ("share", 800), ("mean", 800)])
def test_the_interval_covers_the_truth(kind: str, size: int) -> None:
    """At 95%, 600 tries give between 92.6% and 97.4% with 99.3% probability; a little less is allowed for the
    approximations, and unweighted intervals would cover nothing."""
    values, chances = drawn(7, size, kind)
    truth, covered, naive = float(values.mean()), 0, 0
    rng = np.random.default_rng(8)
    for _ in range(TRIES):
        seen = rng.random(size) < chances
        found = (share if kind == "share" else mean)(values[seen], chances[seen])
        covered += found.low <= truth <= found.high
        naive += found.low <= float(values[seen].mean()) <= found.high
    assert covered / TRIES >= 0.92
    assert naive / TRIES < 0.5, "the weights matter here"


def test_the_interval_of_a_count_covers_it() -> None:
    _, chances = drawn(7, 2000, "share")
    rng, covered = np.random.default_rng(9), 0
    for _ in range(TRIES):
        found = count(chances[rng.random(2000) < chances])
        covered += found.low <= 2000 <= found.high
    assert covered / TRIES >= 0.92


@pytest.mark.parametrize("truth", [0.01, 0.5])
def test_a_rare_thing_has_an_interval_too(truth: float) -> None:
    rng, covered = np.random.default_rng(3), 0
    values = rng.random(3000) < truth
    for _ in range(TRIES):
        seen = rng.random(3000) < 0.1
        found = share(values[seen], np.full(seen.sum(), 0.1))
        covered += found.low <= values.mean() <= found.high
    assert covered / TRIES >= 0.92
    none = share(np.zeros(50, dtype=np.bool_), np.full(50, 0.1))
    assert (none.value, none.low) == (0.0, 0.0)
    assert 0.03 < none.high < 0.1, "none of 50 says little about one in twenty"


def test_a_sample_of_all_has_no_error() -> None:
    found = share(np.array([True, False, False, False]), np.ones(4))
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)
    assert count(np.ones(4)).value == 4.0


def test_nothing_says_nothing() -> None:
    assert share(np.zeros(0, dtype=np.bool_), np.zeros(0)) is estimate.NOTHING
    assert mean(np.zeros(0), np.zeros(0)).n == 0
    assert math.isnan(mean(np.ones(1), np.array([0.5])).low)


def test_wilson_agrees_with_a_published_value() -> None:
    """81 of 263: Newcombe (1998), table I, the score method without continuity correction."""
    low, high = wilson(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 1.0)), min_size=1, max_size=40))
def test_an_interval_holds_its_estimate_and_lies_in_0_to_1(rows: list[tuple[bool, float]]) -> None:
    found = share(np.array([member for member, _ in rows]), np.array([chance for _, chance in rows]))
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
