"""Relayed equals direct: every answer is fetched from the scripted upstream itself and through the relay.

What is compared is said in `raw_client.Answer.comparable`. Each case runs watched and unwatched:
watching must not change a byte but for our own `x-spex-request-id`.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator

import pytest

from tests.story.raw_client import RawClient, ask, chat_request, request
from tests.story.running import Proxy, relay
from tests.story.upstream import CLOSE, LAST_CHUNK, RESET, Step, Upstream, answer, chunk, stream_head

ASK = chat_request(b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}')
EVENTS = [
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    'data: {"choices":[{"index":0,"delta":{"content":"Grüße, 世界 🌍"}}]}\n\n'.encode(),
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
]
WHOLE = b"".join(EVENTS)

# name -> (request, the upstream's script)
CASES: dict[str, tuple[bytes, tuple[Step, ...]]] = {
    "json": (ASK, (answer(b'{"id": "chatcmpl-1", "unknown": [1, 2]}', "X-Any: thing"),)),
    "sse": (ASK, (stream_head(), *map(chunk, EVENTS), LAST_CHUNK)),
    "sse in one write": (ASK, (stream_head() + chunk(WHOLE) + LAST_CHUNK,)),
    "error in the stream": (
        ASK,
        (stream_head(), chunk(EVENTS[0]), chunk(b'data: {"error":{"code":500}}\n\n'), chunk(EVENTS[3]), LAST_CHUNK),
    ),
    "keep-alive comments": (
        ASK,
        (stream_head(), chunk(b": keep-alive\n\n"), chunk(EVENTS[0]), chunk(b": keep-alive\n\n"), LAST_CHUNK),
    ),
    "utf-8 split over chunks": (
        ASK, (stream_head(), *(chunk(WHOLE[i : i + 1]) for i in range(len(WHOLE))), LAST_CHUNK)
    ),
    "not utf-8 at all": (ASK, (answer(bytes(range(256)), content_type="application/octet-stream"),)),
    "4xx": (ASK, (answer(b'{"error":{"message":"no such model","code":404}}', status="404 Not Found"),)),
    "5xx": (ASK, (answer(b"<html>", status="503 Service Unavailable", content_type="text/html"),)),
    "own reason and status": (ASK, (answer(b"?", status="299 Quite Fine"),)),
    "gzip": (ASK, (answer(gzip.compress(b"{}", mtime=0), "content-encoding: gzip", "vary: accept-encoding"),)),
    "empty body": (ASK, (answer(b""),)),
    "no content": (ASK, (b"HTTP/1.1 204 No Content\r\nx-any: thing\r\n\r\n",)),
    "big body": (ASK, (answer(bytes(5_000_000)),)),
    "body without a length": (ASK, (b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\n\r\nto the end", CLOSE)),
    "several cookies": (ASK, (answer(b"{}", "set-cookie: a=1; Path=/", "set-cookie: b=2", "x-a: 1", "x-a: 2"),)),
    "redirect": (ASK, (answer(b"", "location: /elsewhere", status="307 Temporary Redirect"),)),
    "line in latin-1": (ASK, (answer(b"{}", "x-name: J\xf6rg"),)),
    "long lines": (ASK, (answer(b"{}", "x-long: " + "y" * 20_000),)),
    "upstream closes": (ASK, (answer(b"{}", "connection: close"), CLOSE)),
    "early hints": (ASK, (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + answer(b"{}"),)),
    "head": (request("HEAD", "/health"), (b"HTTP/1.1 200 OK\r\ncontent-length: 33\r\nx-any: thing\r\n\r\n",)),
    "not modified": (
        request("GET", "/docs", 'If-None-Match: "1"'), (b'HTTP/1.1 304 Not Modified\r\netag: "1"\r\n\r\n',)
    ),
    "unknown path": (request("PATCH", "/not/known?yet", body=b"\x00\xff"), (answer(b"{}", status="405 No"),)),
}  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module", params=["watched", "unwatched"])
def proxy(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Proxy]:
    with relay(upstream.url, capture_rate=1.0 if request.param == "watched" else 0.0) as running:
        yield running
    assert running.budget.held == 0, "a tap was not finished"


@pytest.mark.parametrize("case", CASES)
def test_relayed_equals_direct(case: str, upstream: Upstream, proxy: Proxy) -> None:
    sent, script = CASES[case]
    upstream.answers(*script)
    direct = ask(upstream.port, sent)
    relayed = ask(proxy.port, sent)
    assert relayed.comparable() == direct.comparable()
    assert relayed.is_whole


@pytest.mark.parametrize(
    "script",
    [
        (stream_head(), chunk(EVENTS[0]), RESET),
        (stream_head(), chunk(EVENTS[0]), CLOSE),
        (stream_head(), b"ff\r\nhalf a chunk", RESET),
        (answer(b"x" * 100)[:-50], RESET),
        (answer(b"x" * 100)[:-50], CLOSE),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", RESET),
    ],
    ids=["stream reset", "stream closed", "chunk reset", "length reset", "length closed", "no length reset"],
)
def test_a_broken_answer_is_broken_for_the_client_too(
    script: tuple[Step, ...], upstream: Upstream, proxy: Proxy
) -> None:
    upstream.answers(*script)
    assert not ask(upstream.port, ASK).is_whole
    relayed = ask(proxy.port, ASK)
    assert relayed.status == 200
    assert not relayed.is_whole


def test_each_event_arrives_before_the_next_is_sent(upstream: Upstream, proxy: Proxy) -> None:
    """Nothing is held back, neither the first event nor later ones, on fresh and on reused connections."""
    with RawClient(proxy.port) as client:
        for _ in range(3):
            gates = [upstream.gate() for _ in EVENTS]
            steps = [step for gate, event in zip(gates, EVENTS, strict=True) for step in (gate, chunk(event))]
            upstream.answers(stream_head(), *steps, LAST_CHUNK)
            client.send(ASK)
            assert client.read_head().status == 200  # the head is here before any event was sent
            for gate, event in zip(gates, EVENTS, strict=True):
                gate.open()
                assert client.read_chunk() == event
            assert client.read_chunk() == b""


def test_a_connection_serves_many_requests_in_turn(upstream: Upstream, proxy: Proxy) -> None:
    with RawClient(proxy.port) as client:
        for number in range(5):
            upstream.answers(answer(b"%d" % number))
            client.send(ASK)
            assert client.read_answer().body == b"%d" % number


def test_a_slow_reader_slows_the_upstream(upstream: Upstream, proxy: Proxy) -> None:
    """Nothing piles up in the relay: while the client does not read, the upstream can't send on.

    What the kernel holds on the way counts as well: its receive buffers may grow to 32 MiB.
    """
    size = 128 << 20
    upstream.answers(answer(bytes(size)))
    with RawClient(proxy.port) as client:
        client.send(ASK)
        assert client.read_head().status == 200
        last = -1
        while upstream.sent != last:  # until nothing moves for a while
            last = upstream.sent
            time.sleep(0.2)
        assert last < size // 2, "the relay swallowed the answer"


def test_watched_requests_are_told_their_id(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(answer(b"{}"))
    is_watched = bool(ask(proxy.port, ASK).value(b"x-spex-request-id"))
    assert is_watched == (len(proxy.outcomes) > 0)
    assert ask(proxy.port, request("GET", "/v1/models")).value(b"x-spex-request-id") is None
