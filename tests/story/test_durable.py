"""Durable hand-off at the relay: a client sees the end of a watched answer once it was kept, on real sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from spex_proxy.facts.exchange import RawExchange, Skipped
from spex_proxy.flows.relay import Hold, Watcher
from spex_proxy.wire.tap import TapBudget, TapLimits
from tests.story.raw_client import RawClient, chat_request
from tests.story.running import Proxy, relay, sampler
from tests.story.upstream import CLOSE, LAST_CHUNK, RESET, Upstream, answer, chunk, eventually, stream_head

ASK = chat_request(b'{"messages": []}')
JSON = b'{"choices": []}'
EVENT, DONE = b'data: {"a": 1}\n\n', b"data: [DONE]\n\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
FOREVER_S = 60.0


@dataclass
class Keeper:
    """Takes exchanges as a spool does, and says that they are safe when the test wants it."""

    takes: bool = True
    kept: list[tuple[RawExchange, Callable[[bool], None]]] = field(default_factory=list)
    offered: list[RawExchange | Skipped] = field(default_factory=list)

    def keep(self, raw: RawExchange, then: Callable[[bool], None]) -> bool:
        if self.takes:
            self.kept.append((raw, then))
        return self.takes

    def offer(self, outcome: RawExchange | Skipped) -> bool:
        self.offered.append(outcome)
        return True

    def say(self, is_kept: bool = True) -> None:
        """From another thread, as a spool does."""
        eventually(lambda: self.kept)
        thread = threading.Thread(target=self.kept.pop()[1], args=(is_kept,))
        thread.start()
        thread.join()


@contextmanager
def held(upstream: Upstream, most_s: float = FOREVER_S) -> Iterator[tuple[Proxy, Keeper]]:
    keeper = Keeper()
    budget = TapBudget(1 << 26)
    watcher = Watcher(sampler(1.0, 0.0), TapLimits(), budget, keeper.offer, hold=Hold(keeper.keep, most_s))
    with relay(upstream.url, watcher=watcher) as proxy:
        yield proxy, keeper
    assert budget.held == 0


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


ANSWERS = {
    "length": (answer(JSON),),
    "chunked": (stream_head(), chunk(JSON), LAST_CHUNK),
    "stream": (stream_head(), chunk(EVENT), chunk(EVENT + DONE), LAST_CHUNK),
    "stream_at_once": (stream_head() + chunk(EVENT) + chunk(DONE) + LAST_CHUNK,),
    "close": (TO_THE_END + EVENT, DONE, CLOSE),
}


@pytest.mark.parametrize("shape", ANSWERS)
def test_the_end_comes_once_it_was_kept(upstream: Upstream, shape: str) -> None:
    upstream.answers(*ANSWERS[shape])
    with RawClient(upstream.port) as direct:
        direct.send(ASK)
        expected = direct.read_answer()
    with held(upstream) as (proxy, keeper), RawClient(proxy.port) as client:
        client.send(ASK)
        eventually(lambda: keeper.kept)
        assert keeper.kept[0][0].response_body == expected.body
        eventually(lambda: upstream.live == 0)
        _, _, seen = client.peek().partition(b"\r\n\r\n")  # a head may end like a last chunk: with a 0
        assert not seen.endswith((JSON, LAST_CHUNK))
        assert DONE not in seen
        keeper.say()
        assert client.read_answer().comparable() == expected.comparable()
        eventually(lambda: proxy.counters.snapshot()["held_answers"] == {"kept": 1})
        assert keeper.offered == []


def test_all_but_the_end_comes_at_once(upstream: Upstream) -> None:
    gate = upstream.gate()
    upstream.answers(stream_head(), chunk(EVENT), gate, chunk(DONE), LAST_CHUNK)
    with held(upstream) as (proxy, keeper), RawClient(proxy.port) as client:
        client.send(ASK)
        client.read_head()
        assert client.read_chunk() == EVENT
        gate.open()
        keeper.say()
        assert (client.read_chunk(), client.read_chunk()) == (DONE, b"")


def test_one_connection_serves_the_next_request_after_the_wait(upstream: Upstream) -> None:
    upstream.answers(answer(JSON))
    with held(upstream) as (proxy, keeper), RawClient(proxy.port) as client:
        client.send(ASK + ASK)
        for _ in range(2):
            keeper.say()
            assert client.read_answer().body == JSON
        assert proxy.counters.snapshot()["relayed_requests"] == {"2xx": 2}


@pytest.mark.parametrize("shape", ANSWERS)
def test_a_slow_disk_costs_a_moment_never_the_answer(upstream: Upstream, shape: str) -> None:
    upstream.answers(*ANSWERS[shape])
    with held(upstream, most_s=0.05) as (proxy, keeper), RawClient(proxy.port) as client:
        client.send(ASK)
        assert client.read_answer().is_whole
        assert proxy.counters.snapshot()["held_answers"] == {"late": 1}
        keeper.say()  # too late to matter, and harmless


@pytest.mark.parametrize("takes", [True, False])
def test_what_cannot_be_kept_goes_out(upstream: Upstream, takes: bool) -> None:
    upstream.answers(*ANSWERS["stream"])
    with held(upstream) as (proxy, keeper), RawClient(proxy.port) as client:
        keeper.takes = takes
        client.send(ASK)
        if takes:
            keeper.say(False)
        assert client.read_answer().is_whole
        assert proxy.counters.snapshot()["held_answers"] == {"unkept": 1}


def test_errors_and_what_is_not_watched_wait_for_nothing(upstream: Upstream) -> None:
    with held(upstream) as (proxy, keeper):
        upstream.answers(answer(b"{}", status="400 Bad Request"))
        with RawClient(proxy.port) as client:
            client.send(ASK)
            assert client.read_answer().status == 400
        upstream.answers(answer(b"{}"))
        with RawClient(proxy.port) as client:
            client.send(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_answer().status == 200
        assert keeper.kept == []
        assert [outcome.reason for outcome in keeper.offered if isinstance(outcome, Skipped)] == ["upstream_error"]
        assert proxy.counters.snapshot()["held_answers"] == {}


@pytest.mark.parametrize("end", [RESET, CLOSE])
def test_an_upstream_that_breaks_after_the_last_event(upstream: Upstream, end: str) -> None:
    """The client gets what came, and sees the break; nothing waits for a disk."""
    upstream.answers(stream_head(), chunk(EVENT), chunk(DONE), end)
    with held(upstream) as (proxy, keeper), RawClient(proxy.port) as client:
        client.send(ASK)
        seen = client.read_answer()
        assert (seen.body, seen.is_whole) == (EVENT + DONE, False)
        assert len(keeper.offered) == 1
        assert keeper.kept == []
        assert proxy.counters.snapshot()["relayed_requests"] == {"upstream_broken": 1}


def test_a_client_that_leaves_while_it_waits(upstream: Upstream) -> None:
    upstream.answers(*ANSWERS["length"])
    with held(upstream) as (proxy, keeper):
        with RawClient(proxy.port) as client:
            client.send(ASK)
            eventually(lambda: keeper.kept)
        keeper.say()
        assert proxy.counters.value("relayed_requests", "2xx") == 1


def test_an_upstream_that_never_ends_after_its_last_event(upstream: Upstream) -> None:
    gate = upstream.gate()
    upstream.answers(stream_head(), chunk(DONE), chunk(b": " + bytes(1_000_000)), chunk(b": " + bytes(99_999)), gate)
    with held(upstream) as (proxy, _), RawClient(proxy.port) as client:
        client.send(ASK)
        client.read_head()
        assert client.read_chunk() == DONE  # memory is bounded, so is the wait
        assert proxy.counters.snapshot()["held_answers"] == {"late": 1}
        gate.open()
