"""The bench of how soon explaining makes room: what its stamps are made into."""

from __future__ import annotations

import pytest

from bench.interference.stamps import Stamps
from bench.yielding import Arrival, arrivals, report


def test_what_a_request_finds_and_when_it_has_its_room() -> None:
    events = [
        ("asked", 1, 1.000), ("closed", 1, 1.018),  # ran when the first came
        ("asked", 2, 1.012), ("answered", 2, 1.015),  # begun after it
        ("asked", 3, 1.500), ("answered", 3, 1.600),  # after its first token
        ("asked", 4, 5.000),  # never ends
    ]  # fmt: skip
    first, second, third = arrivals([1.010, 3.0, 6.0], events, hold=0.1)
    assert (first.running, second, third) == (1, Arrival(0, 0.0, 0.0), Arrival(1, 0.0, float("inf")))
    assert (first.begun, first.closed) == pytest.approx((2.0, 8.0))


def test_the_table_says_how_many_were_in_time() -> None:
    said = report([Arrival(1, 0.0, 8.0), Arrival(1, 6.0, 60.0), Arrival(0, 0.0, 0.0), Arrival(0, 0.0, 0.0)])
    assert "75.0% (at most 5 ms)" in said
    assert "50.0% (at most 50 ms)" in said
    assert "ran at 2 of them" in said


def test_a_query_that_breaks_off_is_closed() -> None:
    stamps = Stamps()
    with stamps.query():
        pass
    with pytest.raises(RuntimeError), stamps.query():
        raise RuntimeError
    assert [(what, number) for what, number, _ in stamps.events] == [
        ("asked", 1), ("answered", 1), ("asked", 2), ("closed", 2),
    ]  # fmt: skip
