"""A client that leaves frees the model at once, in every phase; an upstream that is not there is said so."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from spex_proxy.facts.exchange import RawExchange, Skipped
from tests.story.raw_client import RawClient, ask, chat_request, request
from tests.story.running import Proxy, relay
from tests.story.upstream import CLOSE, HANG, Step, Upstream, answer, chunk, eventually, stream_head

ASK = chat_request(b'{"messages": []}')
EVENT = b"data: {}\n\n"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module", params=["watched", "unwatched"])
def proxy(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Proxy]:
    with relay(upstream.url, capture_rate=1.0 if request.param == "watched" else 0.0) as running:
        yield running
    assert running.budget.held == 0


def the_client_leaves(upstream: Upstream, proxy: Proxy, client: RawClient) -> None:
    gone = proxy.counters.value("relayed_requests", "client_gone")
    outcomes = len(proxy.outcomes)
    eventually(lambda: upstream.live == 1)
    client.leave()
    eventually(lambda: upstream.aborted == 1)
    eventually(lambda: upstream.live == 0)
    eventually(lambda: proxy.counters.value("relayed_requests", "client_gone") == gone + 1)
    if len(proxy.outcomes) > outcomes:
        last = proxy.outcome()
        assert isinstance(last, Skipped)
        assert last.reason == "client_gone"


@pytest.mark.parametrize("body", [b"{}", b'{"stream": true}'], ids=["plain", "streaming"])
def test_before_the_answers_head(body: bytes, upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(HANG)
    with RawClient(proxy.port) as client:
        client.send(chat_request(body))
        the_client_leaves(upstream, proxy, client)


def test_in_the_middle_of_a_busy_stream(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(stream_head(), *[chunk(EVENT * 1000)] * 5000, HANG)
    with RawClient(proxy.port) as client:
        client.send(ASK)
        client.read_head()
        assert client.read_chunk()
        the_client_leaves(upstream, proxy, client)


def test_in_the_middle_of_a_silent_stream(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(stream_head(), chunk(EVENT), HANG)
    with RawClient(proxy.port) as client:
        client.send(ASK)
        client.read_head()
        assert client.read_chunk() == EVENT
        the_client_leaves(upstream, proxy, client)


def test_after_the_event_that_ends_a_stream(upstream: Upstream, proxy: Proxy) -> None:
    """The openai client closes at `[DONE]`, before the stream's formal end: nothing is missing, so it is kept."""
    upstream.answers(stream_head(), chunk(EVENT), chunk(b"data: [DONE]\n\n"), HANG)
    outcomes = len(proxy.outcomes)
    with RawClient(proxy.port) as client:
        client.send(ASK)
        client.read_head()
        seen = b""
        while not seen.endswith(b"data: [DONE]\n\n"):
            seen += client.read_chunk()
        eventually(lambda: upstream.live == 1)
        client.leave()
        eventually(lambda: upstream.aborted == 1)
    if proxy.counters.value("watched_requests"):
        eventually(lambda: len(proxy.outcomes) > outcomes)
        last = proxy.outcome()
        assert isinstance(last, RawExchange)
        assert last.response_body.endswith(b"data: [DONE]\n\n")


def test_in_the_middle_of_a_plain_answer(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(answer(b"x" * 100)[:-50], HANG)
    with RawClient(proxy.port) as client:
        client.send(ASK)
        client.read_head()
        the_client_leaves(upstream, proxy, client)


def test_in_the_middle_of_its_own_upload(upstream: Upstream, proxy: Proxy) -> None:
    gone = proxy.counters.value("relayed_requests", "client_gone")
    upstream.answers(answer(b"{}"))
    with RawClient(proxy.port) as client:
        client.send(request("POST", "/v1/chat/completions", "Content-Length: 1000") + b"x" * 10)
    eventually(lambda: proxy.counters.value("relayed_requests", "client_gone") == gone + 1)
    assert upstream.requests == []  # the request never became whole


def test_who_leaves_does_not_disturb_the_others(upstream: Upstream, proxy: Proxy) -> None:
    gate = upstream.gate()
    upstream.answers(gate, answer(b"{}"))
    with RawClient(proxy.port) as stays, RawClient(proxy.port) as leaves:
        stays.send(ASK)
        leaves.send(ASK)
        eventually(lambda: upstream.live == 2)
        leaves.leave()
        eventually(lambda: upstream.live == 1)
        gate.open()
        assert stays.read_answer().status == 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_an_upstream_that_is_not_there() -> None:
    with relay(f"http://127.0.0.1:{free_port()}") as proxy:
        refused = ask(proxy.port, ASK)
        assert refused.status == 502
        assert refused.value(b"x-spex-error") == b"upstream_unreachable"
        error = json.loads(refused.body)["error"]
        assert (error["type"], error["code"]) == ("proxy_error", "upstream_unreachable")
        assert proxy.counters.value("relayed_requests", "upstream_unreachable") == 1
        last = proxy.outcome()
        assert isinstance(last, Skipped)
        assert last.reason == "upstream_unreachable"
        # ... and it is asked again by the next request, on the same connection or another.
        assert ask(proxy.port, request("GET", "/health")).status == 502


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ((CLOSE,), b"upstream_disconnected"),
        ((b"HTTP/1.1 200 OK\r\ncontent-le", CLOSE), b"upstream_disconnected"),
        ((b"SSH-2.0-OpenSSH_9.2\r\n\r\n", CLOSE), b"upstream_invalid_answer"),
    ],
    ids=["closed", "closed in the head", "not HTTP"],
)
def test_an_upstream_without_an_answer(script: tuple[Step, ...], code: bytes, upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(*script)
    refused = ask(proxy.port, ASK)
    assert (refused.status, refused.value(b"x-spex-error")) == (502, code)
    assert json.loads(refused.body)["error"]["type"] == "proxy_error"
