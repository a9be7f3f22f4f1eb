"""What was seen elsewhere goes the way of what passed the relay: the same watcher, the same tap, the same intake."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from spex_proxy.facts.exchange import RawExchange, Skipped
from spex_proxy.flows.handover import Outcome, take
from spex_proxy.flows.relay import Callers, Hold, Watcher
from spex_proxy.wire.handed import Handed, read_handed
from spex_proxy.wire.tap import TapBudget, TapLimits
from tests.story.running import sampler
from tests.unit.wire.test_handed import GOLDEN, payload

HANDED = read_handed(payload(GOLDEN["line"]))


@dataclass
class House:
    """A watcher, what it was offered, what was counted, what was told."""

    capture: float = 1.0
    limits: TapLimits = TapLimits()  # noqa: RUF009 - frozen
    has_room: bool = True
    hold: Hold | None = None
    callers: Callers = Callers(everybody=True)  # noqa: RUF009 - frozen
    offered: list[RawExchange | Skipped] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    budget: TapBudget = field(default_factory=lambda: TapBudget(1 << 20))

    def offer(self, outcome: RawExchange | Skipped) -> bool:
        self.offered.append(outcome)
        return self.has_room

    def count(self, name: str, label: str, by: float) -> None:
        self.counts[(name, label)] += int(by)

    def take(self, handed: Handed) -> Outcome | None:
        told: list[Outcome] = []
        watched = replace(sampler(self.capture, 0.0), callers=self.callers)
        take(handed, Watcher(watched, self.limits, self.budget, self.offer, hold=self.hold), self.count, told.append)
        assert len(told) <= 1
        assert self.budget.held == 0
        return told[0] if told else None


def test_it_is_offered_as_the_relay_would_have_offered_it() -> None:
    house = House()
    assert house.take(HANDED) == "taken"
    (raw,) = house.offered
    assert isinstance(raw, RawExchange)
    assert raw.head == HANDED.head
    assert (raw.request_body, raw.response_body) == (HANDED.request_body, HANDED.answer)
    assert (raw.first_byte_s, raw.duration_s, raw.capture_probability, raw.explain_wish) == (0.25, 0.5, 1.0, True)
    assert house.counts == {
        ("watched_requests", ""): 1, ("handed_over", "taken"): 1, ("handover_lost", "memory_full"): 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("house", "changes", "outcome", "reason"),
    [
        (House(capture=0.0, callers=Callers()), {}, "unwatched", None),
        (House(has_room=False), {}, "dropped", None),
        (House(limits=TapLimits(request_bytes=100)), {}, "skipped", "too_large_request"),
        (House(limits=TapLimits(answer_bytes=100)), {}, "skipped", "too_large_answer"),
        (House(), {"ending": "client_gone"}, "skipped", "client_gone"),
        (House(), {"ending": "upstream_broken"}, "skipped", "upstream_broken"),
        (House(), {"status": 500}, "skipped", "upstream_error"),
    ],
)
def test_what_becomes_of_it(house: House, changes: dict[str, Any], outcome: str, reason: str | None) -> None:
    assert house.take(replace(HANDED, **changes)) == outcome
    assert house.counts[("handed_over", outcome)] == 1
    if reason:
        assert house.offered == [Skipped(HANDED.head.id, reason)]


def test_a_stream_whose_client_left_after_its_last_event_is_whole() -> None:
    stream: dict[str, Any] = {
        "ending": "client_gone",
        "response_headers": ((b"content-type", b"text/event-stream"),),
        "answer": b'data: {"a": 1}\n\ndata: [DONE]\n\n',
    }
    assert House().take(replace(HANDED, **stream)) == "taken"


@pytest.mark.parametrize(("is_kept", "outcome"), [(True, "taken"), (False, "dropped")])
def test_under_durable_hand_off_it_is_told_once_it_is_on_disk(is_kept: bool, outcome: str) -> None:
    waiting: list[Callable[[bool], None]] = []

    def keep(_: RawExchange, then: Callable[[bool], None]) -> bool:
        waiting.append(then)
        return True

    house = House(hold=Hold(keep))
    assert house.take(HANDED) is None
    waiting[0](is_kept)
    assert house.counts[("handed_over", outcome)] == 1
    assert House(hold=Hold(lambda _raw, _then: False)).take(HANDED) == "dropped"


def test_a_bug_costs_one_exchange_and_is_told() -> None:
    house = House()

    def broken(_: object) -> bool:
        raise ZeroDivisionError

    house.offer = broken  # type: ignore[method-assign, assignment]
    assert house.take(HANDED) == "fault"
    assert house.counts[("faults", "handover")] == 1


def test_who_may_not_say_x_spex_explain_says_nothing() -> None:
    assert House(capture=0.0, callers=Callers(key=b"another")).take(HANDED) == "unwatched"
    assert House(capture=0.0, callers=Callers(key=b"shown")).take(HANDED) == "taken"


def test_the_golden_line_is_one_line() -> None:
    assert "\n" not in json.dumps(GOLDEN["line"])
