"""Counts of production: gaps in buckets, several relays as one, hours and budgets."""

from __future__ import annotations

import math
from datetime import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.load import BUCKETS, Gaps, Production, bucket_of, together
from spex_proxy.facts.token_budget import Hours, TokenBudget, read_hours

gaps_s = st.floats(0.000_3, 0.35)


def counted(gaps: list[float]) -> Gaps:
    counts = [0] * BUCKETS
    for gap in gaps:
        counts[bucket_of(gap)] += 1
    return Gaps(tuple(counts))


@given(st.lists(gaps_s, min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_off_by_less_than_a_bucket(gaps: list[float], q: float) -> None:
    exact = float(np.quantile(gaps, q, method="inverted_cdf"))
    assert counted(gaps).quantile(q) == pytest.approx(exact, rel=2 ** (1 / 6) - 1)


@given(st.floats(0, 1e6))
def test_every_gap_has_a_bucket(gap: float) -> None:
    assert 0 <= bucket_of(gap) < BUCKETS


def test_no_gaps_say_nothing() -> None:
    assert math.isnan(Gaps().quantile(0.95))


@given(st.lists(gaps_s, max_size=50), st.lists(gaps_s, max_size=50))
def test_what_came_since(before: list[float], after: list[float]) -> None:
    assert counted(before + after).since(counted(before)) == counted(after)


def test_relays_together() -> None:
    one = Production(3, 1, 10, counted([0.01]))
    two = Production(2, 0, 5, counted([0.02]))
    assert together([one, two]) == Production(5, 1, 15, counted([0.01, 0.02]))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "21:59"]),
     ("01:30-02:00", ["01:30", "01:59"], ["02:00", "01:29"])],
)  # fmt: skip
def test_hours_may_cross_midnight(text: str, inside: list[str], outside: list[str]) -> None:
    hours = read_hours(text)
    assert hours is not None
    assert all(time.fromisoformat(moment) in hours for moment in inside)
    assert not any(time.fromisoformat(moment) in hours for moment in outside)


@pytest.mark.parametrize("text", ["22-06", "25:00-06:00", "10:00", "10:00-11:60", "always"])
def test_hours_that_can_t_be_read(text: str) -> None:
    with pytest.raises(ValueError, match="22:00-06:00"):
        read_hours(text)


def test_no_hours() -> None:
    assert read_hours(" ") is None
    assert Hours(time(1), time(2)) == read_hours("01:00-02:00")


def test_a_budget_names_the_window_that_is_spent() -> None:
    budget = TokenBudget(minute=100, day=1000)
    assert budget.over({"minute": 99, "hour": 10**9, "day": 999}) is None
    assert (
        budget.over({"minute": 100, "hour": 0, "day": 0})
        == "100 tokens were asked in the last minute, of a budget of 100"
    )
    assert "day" in str(budget.over({"minute": 0, "hour": 0, "day": 1000}))
    assert budget.is_limited
    assert not TokenBudget().is_limited
