"""The hand-off to the store: bounded, never waiting, and honest about every loss."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from spex_proxy.facts.exchange import Exchange, RawExchange, Skipped, TraceRef
from spex_proxy.flows.intake import Intake, IntakeLimits
from spex_proxy.flows.relay import Verdict
from spex_proxy.flows.understand import Captured
from spex_proxy.ports.counters import Counters
from tests.unit.wire.exchanges import raw, reply, said

GOOD = raw(answer=reply(said("Hello")))
QUICK = IntakeLimits(linger_s=0.0, retry_delays_s=(0.01, 0.01))
SPAN = TraceRef("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def numbered(number: int) -> RawExchange:
    return dataclasses.replace(GOOD, head=dataclasses.replace(GOOD.head, id=f"id-{number}"))


class Store:
    """Saves what it is given, unless `breaks` says otherwise."""

    def __init__(self, breaks: Callable[[Sequence[Captured]], bool] = lambda _: False) -> None:
        self.breaks = breaks
        self.batches: list[list[str]] = []
        self.calls = 0

    def save(self, batch: Sequence[Captured]) -> dict[str, int]:
        self.calls += 1
        if self.breaks(batch):
            raise OSError("disk full")
        self.batches.append([c.exchange.id for c in batch])
        return {"explain": sum(c.verdict.explain for c in batch), "capped": 0}

    @property
    def ids(self) -> list[str]:
        return [i for batch in self.batches for i in batch]


def always(raw: RawExchange, exchange: Exchange) -> Verdict:
    return Verdict(True, "sampled", 1.0)


@contextmanager
def intake(
    save: Callable[[Sequence[Captured]], Mapping[str, int]],
    limits: IntakeLimits = QUICK,
    *,
    starts: bool = True,
    choose: Callable[[RawExchange, Exchange], Verdict] = always,
) -> Iterator[tuple[Intake, Counters]]:
    counters = Counters()
    running = Intake(save=save, choose=choose, trace=lambda _: SPAN, counters=counters, limits=limits)
    if starts:
        running.start()
    yield running, counters
    running.close(5)
    assert not any(t.name == "spex-intake" for t in threading.enumerate())


def keep(saved: list[Captured]) -> Callable[[Sequence[Captured]], Mapping[str, int]]:
    def save(batch: Sequence[Captured]) -> Mapping[str, int]:
        saved.extend(batch)
        return {}

    return save


def test_what_is_offered_is_saved_in_order() -> None:
    store = Store()
    with intake(store.save) as (running, counters):
        assert all(running.offer(numbered(i)) for i in range(20))
        assert running.close(5) == 0
    assert store.ids == [f"id-{i}" for i in range(20)]
    assert counters.value("captured_exchanges") == 20
    assert counters.value("stored_exchanges") == 20
    assert counters.value("explain_chosen") == 20
    assert counters.value("intake_queue_items") == counters.value("intake_queue_bytes") == 0


def test_everything_that_the_store_needs_is_there() -> None:
    saved: list[Captured] = []
    with intake(keep(saved)) as (running, _):
        running.offer(GOOD)
        running.close(5)
    assert saved[0].verdict == Verdict(True, "sampled", 1.0)
    assert saved[0].trace == SPAN
    assert saved[0].request_body == GOOD.request_body
    assert (saved[0].traceparent, saved[0].tracestate) == (None, None)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (((b"traceparent", b"p"), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")), ("p", "a=1,b=2")),
        (((b"traceparent", b"p"), (b"traceparent", b"q"), (b"tracestate", b"a=1")), (None, None)),
        (((b"tracestate", b"a=1"),), (None, None)),
    ],
)
def test_the_callers_trace_context(
    lines: tuple[tuple[bytes, bytes], ...], expected: tuple[str | None, str | None]
) -> None:
    saved: list[Captured] = []
    with intake(keep(saved)) as (running, _):
        running.offer(raw(answer=reply(said("Hello")), sent_headers=lines))
        running.close(5)
    assert (saved[0].traceparent, saved[0].tracestate) == expected


def test_batches_are_small() -> None:
    store = Store()
    limits = IntakeLimits(batch=4, linger_s=0.05)
    with intake(store.save, limits, starts=False) as (running, _):
        for i in range(10):
            running.offer(numbered(i))
        running.start()
        running.close(5)
    assert [len(batch) for batch in store.batches] == [4, 4, 2]


def test_what_is_skipped_is_counted_and_not_saved() -> None:
    store = Store()
    with intake(store.save) as (running, counters):
        assert not running.offer(Skipped("id-1", "client_gone"))
        assert running.offer(raw(b"{bad", reply(said("Hello"))))
        running.close(5)
    assert store.calls == 0
    assert counters.snapshot()["skipped_exchanges"] == {"client_gone": 1, "not_json": 1}


def test_a_full_queue_drops_and_counts() -> None:
    with intake(Store().save, IntakeLimits(max_items=3), starts=False) as (running, counters):
        assert [running.offer(GOOD) for _ in range(5)] == [True, True, True, False, False]
        assert counters.value("dropped_exchanges", "queue_full") == 2
        assert counters.value("intake_queue_items") == 3


def test_the_queue_is_bounded_by_bytes_too() -> None:
    big = dataclasses.replace(GOOD, response_body=bytes(40_000))
    with intake(Store().save, IntakeLimits(max_bytes=100_000), starts=False) as (running, counters):
        assert [running.offer(big) for _ in range(4)] == [True, True, False, False]
        assert running.offer(GOOD)  # a small one still fits
        assert counters.value("dropped_exchanges", "queue_bytes_full") == 2


def test_room_is_made_again_once_work_is_done() -> None:
    store = Store()
    with intake(store.save, IntakeLimits(max_items=1, linger_s=0.0)) as (running, _):
        for i in range(5):
            assert running.offer(numbered(i))
            while running.waiting:
                time.sleep(0.001)
    assert len(store.ids) == 5


def test_offering_never_waits_for_a_hanging_store() -> None:
    released = threading.Event()

    def save(batch: Sequence[Captured]) -> dict[str, int]:
        released.wait(10)
        return {}

    with intake(save, IntakeLimits(max_items=100, linger_s=0.0)) as (running, _):
        begun = time.monotonic()
        taken = [running.offer(GOOD) for _ in range(200)]
        assert time.monotonic() - begun < 5  # the store hangs for ten
        assert taken.count(True) == 100
        released.set()


def test_a_store_that_fails_is_tried_again() -> None:
    store = Store()
    store.breaks = lambda _: store.calls <= 2
    with intake(store.save) as (running, counters):
        running.offer(numbered(1))
        running.close(5)
    assert store.ids == ["id-1"]
    assert counters.value("save_retries") == 2
    assert counters.value("stored_exchanges") == 1
    assert counters.snapshot()["dropped_exchanges"] == {}


def test_a_store_that_stays_down_costs_what_it_must() -> None:
    store = Store(breaks=lambda _: True)
    with intake(store.save, starts=False) as (running, counters):
        for i in range(10):
            running.offer(numbered(i))
        running.start()
        assert running.close(5) == 0
    assert counters.value("dropped_exchanges", "save_failed") == 10
    assert counters.value("stored_exchanges") == 0
    assert store.calls == 3 + 3  # the batch three times, then one by one until it is clear


def test_the_thread_goes_on_after_a_failure() -> None:
    store = Store(breaks=lambda batch: batch[0].exchange.id == "id-1")
    with intake(store.save) as (running, counters):
        running.offer(numbered(1))
        while running.waiting:
            time.sleep(0.001)
        running.offer(numbered(2))
        running.close(5)
    assert store.ids == ["id-2"]
    assert counters.value("dropped_exchanges", "save_failed") == 1


def test_one_bad_exchange_does_not_cost_the_others() -> None:
    store = Store(breaks=lambda batch: any(c.exchange.id == "id-3" for c in batch))
    with intake(store.save, starts=False) as (running, counters):
        for i in range(6):
            running.offer(numbered(i))
        running.start()
        running.close(5)
    assert store.ids == [f"id-{i}" for i in (0, 1, 2, 4, 5)]
    assert counters.value("dropped_exchanges", "save_failed") == 1


def test_closing_has_a_deadline_and_says_what_is_left() -> None:
    released = threading.Event()
    begun = threading.Event()

    def save(batch: Sequence[Captured]) -> dict[str, int]:
        begun.set()
        released.wait(10)
        return {}

    with intake(save, IntakeLimits(batch=1, linger_s=0.0)) as (running, counters):
        for i in range(4):
            running.offer(numbered(i))
        assert begun.wait(5)
        assert running.close(0.05) == 4
        assert counters.value("dropped_exchanges", "shutdown") == 4
        released.set()


def test_closing_does_not_wait_out_the_retries() -> None:
    limits = IntakeLimits(linger_s=0.0, retry_delays_s=(60.0,))
    with intake(Store(breaks=lambda _: True).save, limits) as (running, counters):
        running.offer(GOOD)
        while not counters.value("save_retries"):
            time.sleep(0.001)
        assert running.close(0.05) == 1


def test_after_closing_nothing_is_taken() -> None:
    with intake(Store().save) as (running, counters):
        running.close(5)
        assert not running.offer(GOOD)
        assert counters.value("dropped_exchanges", "closed") == 1


def test_a_bug_in_the_parser_costs_one_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(exchange: RawExchange, project: str) -> Exchange:
        raise ZeroDivisionError

    monkeypatch.setattr("spex_proxy.wire.chat.parse", parse)
    with intake(Store().save) as (running, counters):
        running.offer(GOOD)
        running.close(5)
    assert counters.value("faults", "parse") == 1
    assert counters.value("dropped_exchanges", "fault") == 1


def test_what_its_rule_does_not_capture_is_let_go_and_counted() -> None:
    store = Store()
    refuse = Verdict(False, "not_sampled", 0.5, 0.25, is_kept=False)
    with intake(store.save, choose=lambda raw, exchange: refuse) as (running, counters):
        running.offer(GOOD)
        running.close(5)
    assert store.calls == 0
    assert counters.value("captured_exchanges") == 0
    assert counters.snapshot()["skipped_exchanges"] == {"not_sampled": 1}


def test_the_rules_probability_is_stored() -> None:
    saved: list[Captured] = []
    with intake(keep(saved), choose=lambda raw, exchange: Verdict(False, "not_sampled", 0.5, 0.25)) as (running, _):
        running.offer(GOOD)
        running.close(5)
    assert saved[0].exchange.capture_probability == 0.25


def test_a_fault_while_choosing_keeps_the_exchange_unexplained() -> None:
    saved: list[Captured] = []

    def choose(raw: RawExchange, exchange: Exchange) -> Verdict:
        raise ZeroDivisionError

    with intake(keep(saved), choose=choose) as (running, counters):
        running.offer(GOOD)
        running.close(5)
    assert (saved[0].verdict.explain, saved[0].verdict.why) == (False, "error")
    assert counters.value("faults", "choose") == 1


def test_jobs_and_refused_jobs_are_counted_as_the_store_says() -> None:
    with intake(lambda batch: {"explain": 2, "capped": 3, "kept": 4}) as (running, counters):
        running.offer(GOOD)
        running.close(5)
    assert (counters.value("explain_chosen"), counters.value("explain_capped")) == (2, 3)


def test_what_cannot_be_explained_is_stored_and_counted() -> None:
    saved: list[Captured] = []
    calls = [{"id": "t1", "function": {"name": "f", "arguments": "{}"}}]
    with intake(keep(saved)) as (running, counters):
        running.offer(raw(answer=reply(said(None) | {"tool_calls": calls}, finish_reason="tool_calls")))
        running.close(5)
    assert saved[0].exchange.obstacle == "tool_calls"
    assert counters.value("unexplainable_exchanges", "tool_calls") == 1
