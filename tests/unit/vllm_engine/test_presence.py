"""When a masked query may begin: production's rhythm, on a clock that the test sets."""

from __future__ import annotations

import pytest

from spex_proxy_vllm.presence import LATE, REMEMBERED, TRIES, Presence


class World:
    """Production that comes every `interval` seconds and stays for `stay`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.presence = Presence(lambda: self.now)

    def goes_on(self, *intervals: float, stay: float = 0.5) -> None:
        """Ends just as the last request has left."""
        for interval in intervals:
            self.presence.came()
            self.now += stay
            self.presence.went()
            self.now += interval - stay
        self.presence.came()
        self.now += stay
        self.presence.went()


@pytest.fixture
def world() -> World:
    return World()


def test_a_query_that_ends_before_production_is_due_begins(world: World) -> None:
    world.goes_on(*[1.0] * REMEMBERED)
    world.presence.took(0.25)
    assert world.presence.wait_s() == 0
    world.now += 0.2  # at .7 of the interval: it would end at .95
    assert world.presence.wait_s() == 0


def test_one_that_would_not_waits_until_production_is_late(world: World) -> None:
    world.goes_on(*[1.0] * REMEMBERED)
    world.presence.took(0.25)
    world.now += 0.3
    assert world.presence.wait_s() == pytest.approx(LATE - 0.8)
    world.now += LATE - 0.8 + 1e-6
    assert world.presence.wait_s() == 0


def test_one_long_pause_among_many_is_no_reason_to_wait_as_long(world: World) -> None:
    world.goes_on(*[1.0] * REMEMBERED, 600.0)
    world.presence.took(0.25)
    world.now += 0.3
    assert 0 < world.presence.wait_s() <= 2


def test_the_longest_of_the_last_queries_counts(world: World) -> None:
    world.goes_on(*[1.0] * REMEMBERED)
    for seconds in (0.1, 0.45, 0.1):
        world.presence.took(seconds)
    assert world.presence.wait_s() == 0
    world.now += 0.1
    assert world.presence.wait_s() > 0


@pytest.mark.parametrize(
    ("intervals", "took"),
    [
        ([1.0] * 4, 0.25),  # too few to tell
        ([1.0, 3.0] * REMEMBERED, 0.25),  # no rhythm
        ([1.0] * REMEMBERED, 0.75),  # no pause that it would fit into
        ([1.0] * REMEMBERED, None),  # not known how long one takes
    ],
)
def test_where_nobody_can_tell_it_begins_at_once(world: World, intervals: list[float], took: float | None) -> None:
    world.goes_on(*intervals)
    if took is not None:
        world.presence.took(took)
    for _ in range(5):
        assert world.presence.wait_s() == 0
        world.now += 0.1


def test_pauses_that_none_fits_into_are_tried_and_then_left_alone_until_production_is_late(world: World) -> None:
    world.goes_on(*[1.0] * REMEMBERED)
    world.presence.took(0.75)
    for _ in range(TRIES):
        assert world.presence.wait_s() == 0
        world.presence.lost()
    assert world.presence.wait_s() == pytest.approx(LATE - 0.5)
    world.now += LATE - 0.5 + 1e-6
    assert world.presence.wait_s() == 0
    world.goes_on(*[1.0] * REMEMBERED)
    assert world.presence.wait_s() > 0
    world.presence.took(0.75)  # one did fit
    assert world.presence.wait_s() == 0


def test_requests_that_overlap_are_one_stay(world: World) -> None:
    presence = world.presence
    for _ in range(REMEMBERED):
        presence.came()
        world.now += 0.25
        presence.came()
        world.now += 0.25
        presence.went()
        presence.went()
        world.now += 0.5
    presence.came()
    world.now += 0.5
    presence.went()
    presence.took(0.25)
    assert presence.wait_s() == 0
    world.now += 0.3
    assert presence.wait_s() > 0
