"""Whatever of ours breaks, production is served unchanged, and the loss is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from spex_proxy.facts.exchange import Exchange, RawExchange, RequestHead, Skipped, TraceRef
from spex_proxy.flows.intake import Intake, IntakeLimits
from spex_proxy.flows.relay import Verdict
from spex_proxy.flows.understand import Captured
from spex_proxy.ports.counters import Counters
from spex_proxy.wire.tap import Tap, TapBudget, TapLimits
from tests.story.raw_client import ask, chat_request
from tests.story.running import Proxy, relay, sampler
from tests.story.upstream import LAST_CHUNK, Upstream, answer, chunk, eventually, stream_head

QUESTION = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'
ASK = chat_request(QUESTION)
REPLY = answer(
    b'{"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "finish_reason": "stop", '
    b'"message": {"role": "assistant", "content": "Hello"}}]}'
)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EXPLAIN_ALL = sampler(1.0, 1.0)
QUICK = IntakeLimits(linger_s=0.0, retry_delays_s=(0.01,))
Save = Callable[[Sequence[Captured]], None]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@contextmanager
def relay_with_intake(
    upstream: Upstream,
    save: Save,
    choose: Callable[[RawExchange, Exchange], Verdict] = EXPLAIN_ALL.choose,
    trace: Callable[[Captured], TraceRef | None] = lambda _: None,
    limits: IntakeLimits = QUICK,
    tap_limits: TapLimits | None = None,
) -> Iterator[tuple[Proxy, Intake]]:
    counters = Counters()
    intake = Intake(save=save, choose=choose, trace=trace, counters=counters, limits=limits)
    intake.start()
    with relay(upstream.url, offer=intake.offer, counters=counters, limits=tap_limits) as proxy:
        yield proxy, intake
    intake.close(5)


def assert_served_unchanged(upstream: Upstream, proxy: Proxy, request: bytes = ASK) -> None:
    assert ask(proxy.port, request).comparable() == ask(upstream.port, request).comparable()


def test_a_good_day(upstream: Upstream) -> None:
    """The whole way of story 1, for comparison: what is saved is what was said."""
    saved: list[Captured] = []
    upstream.answers(
        stream_head(),
        chunk(b'data: {"id":"chatcmpl-7","model":"m","choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'),
        chunk(b'data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n'),
        chunk(b"data: [DONE]\n\n"),
        LAST_CHUNK,
    )
    with relay_with_intake(upstream, saved.extend) as (proxy, _):
        lines = (f"traceparent: {TRACEPARENT}", "tracestate: a=1", "tracestate: b=2", "x-spex-explain: yes")
        answered = ask(proxy.port, chat_request(QUESTION, *lines))
        eventually(lambda: saved)
    captured = saved[0]
    assert answered.value(b"x-spex-request-id") == captured.exchange.id.encode()
    assert captured.exchange.output_text == "Hello"
    assert captured.exchange.upstream_id == "chatcmpl-7"
    assert captured.exchange.streamed
    verdict = captured.verdict
    assert (verdict.explain, verdict.why, verdict.probability) == (True, "header", 1.0)
    assert (captured.traceparent, captured.tracestate) == (TRACEPARENT, "a=1,b=2")
    assert captured.request_body == QUESTION
    assert 0 <= captured.exchange.first_byte_s <= captured.exchange.duration_s
    assert proxy.counters.value("stored_exchanges") == 1
    assert proxy.counters.value("relayed_requests", "2xx") == 1


def test_the_store_is_unwritable(upstream: Upstream) -> None:
    def save(batch: Sequence[Captured]) -> None:
        raise OSError(28, "No space left on device")

    upstream.answers(REPLY)
    with relay_with_intake(upstream, save) as (proxy, _):
        assert_served_unchanged(upstream, proxy)
        eventually(lambda: proxy.counters.value("dropped_exchanges", "save_failed") == 1)
        assert_served_unchanged(upstream, proxy)
        eventually(lambda: proxy.counters.value("dropped_exchanges", "save_failed") == 2)
        assert proxy.counters.value("faults", "save") == 4  # one retry each
        assert proxy.counters.value("stored_exchanges") == 0


def test_the_store_comes_back(upstream: Upstream) -> None:
    saved: list[Captured] = []

    def save(batch: Sequence[Captured]) -> None:
        if proxy.counters.value("faults", "save") == 0:
            raise OSError("database is locked")
        saved.extend(batch)

    upstream.answers(REPLY)
    with relay_with_intake(upstream, save) as (proxy, _):
        assert_served_unchanged(upstream, proxy)
        eventually(lambda: len(saved) == 1)
        assert proxy.counters.value("save_retries") == 1
        assert proxy.counters.snapshot()["dropped_exchanges"] == {}


def test_the_store_hangs(upstream: Upstream) -> None:
    released = threading.Event()

    def save(batch: Sequence[Captured]) -> None:
        released.wait(10)

    upstream.answers(REPLY)
    limits = IntakeLimits(max_items=3, batch=1, linger_s=0.0)
    with relay_with_intake(upstream, save, limits=limits) as (proxy, intake):
        for _ in range(8):
            assert_served_unchanged(upstream, proxy)
        assert intake.waiting == 3
        assert proxy.counters.value("dropped_exchanges", "queue_full") == 5
        released.set()


def test_a_plugin_raises(upstream: Upstream) -> None:
    def choose(raw: RawExchange, exchange: Exchange) -> Verdict:
        raise RuntimeError("a sampler of somebody's")

    def trace(captured: Captured) -> TraceRef | None:
        raise RuntimeError("no collector")

    saved: list[Captured] = []
    upstream.answers(REPLY)
    with relay_with_intake(upstream, saved.extend, choose, trace) as (proxy, _):
        assert_served_unchanged(upstream, proxy)
        eventually(lambda: saved)
        assert saved[0].verdict == Verdict(False, "error", 0.0)
        assert saved[0].trace is None
        assert proxy.counters.snapshot()["faults"] == {"choose": 1, "trace": 1}


class BrokenWatcher:
    """Breaks where it is told to."""

    hold = None

    def __init__(self, place: str, budget: TapBudget) -> None:
        self.place = place
        self.budget = budget

    def passes_by(self, request_id: str, path: str) -> bool:
        return False

    def consider(self, head: RequestHead) -> Tap | None:
        if self.place == "consider":
            raise RuntimeError("a bug")
        return BrokenTap(self.place, head, self.budget)

    def offer(self, outcome: RawExchange | Skipped) -> bool:
        raise RuntimeError("a bug")


class BrokenTap(Tap):
    def __init__(self, place: str, head: RequestHead, budget: TapBudget) -> None:
        super().__init__(head, TapLimits(), budget, 1.0, None)
        self.place = place

    def request_chunk(self, chunk: bytes) -> None:
        super().request_chunk(chunk)
        if self.place == "request":
            raise RuntimeError("a bug")

    def response_start(self, status: int, headers: Any) -> None:
        if self.place == "start":
            raise RuntimeError("a bug")

    def response_chunk(self, chunk: bytes, seconds: float) -> None:
        super().response_chunk(chunk, seconds)
        if self.place == "chunk":
            raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("where", "counted"),
    [("consider", "watch"), ("request", "tap"), ("start", "tap"), ("chunk", "tap"), ("offer", "offer")],
)
def test_a_bug_in_what_watches(where: str, counted: str, upstream: Upstream) -> None:
    budget = TapBudget(1 << 20)
    upstream.answers(REPLY)
    with relay(upstream.url, watcher=BrokenWatcher(where, budget)) as proxy:
        assert_served_unchanged(upstream, proxy)
        eventually(lambda: proxy.counters.snapshot()["faults"] == {counted: 1})
        assert budget.held == 0
        assert_served_unchanged(upstream, proxy)


REQUESTS: dict[str, tuple[bytes, str]] = {
    "malformed JSON": (b'{"model": ', "not_json"),
    "not an object": (b"[1, 2]", "unknown_shape"),
    "no body": (b"", "not_json"),
    "unknown fields only": (b'{"foo": {"bar": [null]}}', "unknown_shape"),
    "no messages": (b'{"messages": []}', "empty_prompt"),
    "empty messages": (b'{"messages": [{"role": "user", "content": ""}]}', "empty_prompt"),
    "a huge body": (b'{"messages": "' + b"x" * 300_000 + b'"}', "too_large_request"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_strange_requests_are_relayed_and_skipped_with_a_reason(case: str, upstream: Upstream) -> None:
    body, reason = REQUESTS[case]
    upstream.answers(REPLY)
    limits = TapLimits(request_bytes=200_000)
    with relay_with_intake(upstream, lambda _: None, tap_limits=limits) as (proxy, _):
        assert_served_unchanged(upstream, proxy, chat_request(body))
        assert upstream.requests[0].body == body
        eventually(lambda: proxy.counters.snapshot()["skipped_exchanges"] == {reason: 1})
