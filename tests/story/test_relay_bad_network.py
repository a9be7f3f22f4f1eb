"""Bad days on the wire: the request is served or gets an honest error, it is counted, and nothing is left behind."""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spex_proxy.facts.exchange import RawExchange, Skipped
from tests.story.processes import Settings, running, wait_until
from tests.story.raw_client import EndOfStream, RawClient, ask, chat_request, request
from tests.story.running import Proxy, relay
from tests.story.upstream import CLOSE, HANG, LAST_CHUNK, RESET, Upstream, answer, chunk, eventually, stream_head

ASK = chat_request(b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}')
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
OK = answer(b"{}")
GET = request("GET", "/v1/models")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """The first event loop of a process opens files for all."""
    with Upstream() as upstream, relay(upstream.url) as proxy:
        upstream.answers(OK)
        assert ask(proxy.port, ASK).status == 200


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing itself opens one, each time


@contextmanager
def bad_day(upstream: Upstream, *, is_watched: bool = True) -> Iterator[Proxy]:
    """A relay that must have no request, task, socket or held byte left when the day is over."""
    upstream.answers(OK)
    before = open_files()
    with relay(upstream.url, capture_rate=1.0 if is_watched else 0.0) as proxy:
        yield proxy
        eventually(lambda: upstream.live == 0)
        eventually(lambda: proxy.tasks() == 0)
        eventually(lambda: proxy.budget.held == 0)
        assert proxy.counters.snapshot()["faults"] == {}
    eventually(lambda: open_files() <= before)


def counted(proxy: Proxy) -> object:
    return proxy.counters.snapshot()["relayed_requests"]


# ---- the upstream's bad days


@pytest.mark.parametrize("end", [RESET, CLOSE])
def test_the_upstream_breaks_off_in_the_middle_of_a_chunk(upstream: Upstream, end: str) -> None:
    with bad_day(upstream) as proxy:
        upstream.answers(stream_head(), chunk(EVENT), b"ff\r\nhalf a chunk", end)
        got = ask(proxy.port, ASK)
        assert (got.status, got.is_whole) == (200, False)
        assert got.body.startswith(EVENT)
        eventually(lambda: counted(proxy) == {"upstream_broken": 1})
        eventually(lambda: isinstance(proxy.outcome(), Skipped))
        upstream.answers(OK)
        assert ask(proxy.port, ASK).status == 200


def test_the_upstream_sends_what_is_no_utf8(upstream: Upstream) -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe\xc3"}}]}\n\n'
    with bad_day(upstream) as proxy:
        upstream.answers(stream_head(), chunk(event), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
        assert ask(proxy.port, ASK).body == event + b"data: [DONE]\n\n"
        eventually(lambda: isinstance(proxy.outcome(), RawExchange))
        assert counted(proxy) == {"2xx": 1}


def test_the_upstream_never_ends_and_the_relay_is_stopped(upstream: Upstream) -> None:
    """After its deadline (a second here) the relay cuts it off, which the client sees."""
    before = open_files()
    upstream.answers(stream_head(), chunk(EVENT), HANG)
    with relay(upstream.url) as proxy:
        client = RawClient(proxy.port)
        client.send(ASK)
        client.read_head()
        assert client.read_chunk() == EVENT
    with client, pytest.raises(ConnectionError):
        client.read_chunk()
    eventually(lambda: upstream.live == 0)
    assert counted(proxy) == {"stopped": 1}
    assert proxy.budget.held == 0
    eventually(lambda: open_files() <= before)


def test_the_upstream_never_ends_and_never_stops_sending(upstream: Upstream) -> None:
    """An answer without an end costs no memory beyond the tap's bound, and ends when its client leaves."""
    with bad_day(upstream) as proxy, RawClient(proxy.port) as client:
        upstream.answers(stream_head(), *[chunk(EVENT * 1000)] * 200, HANG)
        client.send(ASK)
        client.read_head()
        for _ in range(200):
            assert client.read_chunk() == EVENT * 1000
        assert proxy.budget.held <= 1 << 23
        client.leave()
        eventually(lambda: counted(proxy) == {"client_gone": 1})


def test_the_upstream_answers_before_the_request_is_complete(upstream: Upstream) -> None:
    with bad_day(upstream) as proxy, RawClient(proxy.port) as client:
        upstream.answers(answer(b'{"error": {}}', status="413 Content Too Large"), reads_body=False)
        client.send(request("POST", "/v1/chat/completions", "Content-Length: 1000000") + b"x" * 1000)
        got = client.read_answer()
        assert (got.status, got.value(b"connection")) == (413, b"close")
        eventually(lambda: counted(proxy) == {"4xx": 1})


def test_the_upstream_closes_idle_connections(upstream: Upstream) -> None:
    """At any moment between two requests, also just as the next one is on its way."""
    with bad_day(upstream) as proxy, RawClient(proxy.port) as client:
        for pause in (0.1, 0.05, 0.02):
            upstream.answers(OK, CLOSE)  # 20 ms after its answer
            client.send(ASK)
            assert client.read_answer().status == 200
            time.sleep(pause)
            client.send(GET)
            assert client.read_answer().status == 200, "what is safe is asked again on another connection"
            time.sleep(0.1)
        assert counted(proxy) == {"2xx": 6}


# ---- the client's bad days

DICE = random.Random(7)
GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + DICE.randbytes(200),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "noise": DICE.randbytes(5000),
    "NULs": bytes(1000),
    "JSON": b'{"model": "m"}\r\n\r\n',
    "a letter without an end": b"A" * 100_000,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_the_client_sends_garbage(upstream: Upstream, what: str) -> None:
    with bad_day(upstream) as proxy:
        with RawClient(proxy.port) as client:
            client.send(GARBAGE[what])
            got = client.read_answer()
            assert got.status in (400, 431)
            assert got.value(b"connection") == b"close"
            with pytest.raises(EndOfStream):
                client.read_exactly(1)
        assert sum(proxy.counters.snapshot()["relayed_requests"].values()) == 1  # type: ignore[union-attr]
        assert upstream.accepted == 0
        assert ask(proxy.port, GET).status == 200


def test_the_client_pipelines(upstream: Upstream) -> None:
    """Answered in order, one at a time upstream; more than may wait is not read until it may."""
    with bad_day(upstream) as proxy, RawClient(proxy.port) as client:
        client.send(b"".join(chat_request(b'{"n": %d}' % number) for number in range(300)))
        client.send(request("GET", "/last"))
        assert [client.read_answer().status for _ in range(301)] == [200] * 301
        assert [seen.body for seen in upstream.requests[:300]] == [b'{"n": %d}' % number for number in range(300)]
        assert upstream.requests[300].target == b"/last"
        assert counted(proxy) == {"2xx": 301}


def test_the_client_pipelines_and_leaves(upstream: Upstream) -> None:
    with bad_day(upstream) as proxy:
        upstream.answers(HANG)
        with RawClient(proxy.port) as client:
            client.send(ASK * 50)
            eventually(lambda: upstream.live == 1)
        eventually(lambda: counted(proxy) == {"client_gone": 1})
    assert len(upstream.requests) == 1


def test_the_client_closes_one_half(upstream: Upstream) -> None:
    """It looks as if it had left, and is taken to have left: the model stops working for it."""
    with bad_day(upstream) as proxy, RawClient(proxy.port) as client:
        upstream.answers(HANG)
        client.send(ASK)
        eventually(lambda: upstream.live == 1)
        client.stop_sending()
        with pytest.raises(EndOfStream):
            client.read_exactly(1)
        eventually(lambda: counted(proxy) == {"client_gone": 1})


def test_the_client_trickles(upstream: Upstream) -> None:
    """A byte at a time, some of them a second apart; others are served meanwhile, and the request arrives whole."""
    sent = chat_request(b'{"a": 1}')
    slow = {0, len(sent) // 2, len(sent) - 1}
    with bad_day(upstream) as proxy, RawClient(proxy.port, timeout_s=30) as client:
        for place in range(len(sent)):
            client.send(sent[place : place + 1])
            if place in slow:
                assert ask(proxy.port, GET).status == 200
                time.sleep(1)
        assert client.read_answer().status == 200
        assert [seen.body for seen in upstream.requests if seen.method == b"POST"] == [b'{"a": 1}']
        assert counted(proxy) == {"2xx": 4}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_idle_connections(upstream: Upstream, store_path: Path, tmp_path: Path) -> None:
    """They cost descriptors and a little memory; requests on them and beside them are served as ever."""
    count, need = 10_000, 10_500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < need:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (need, max(hard, need)))
        except (ValueError, OSError) as error:
            pytest.fail(
                f"this test and the relay need {need} open files each, and may have {hard} (ulimit -Hn): {error}"
            )
    upstream.answers(OK)
    told = Settings(upstream.url, f"sqlite:///{store_path}", more={"explain_rate": 0, "capture_rate": 0})
    clients: list[RawClient] = []
    try:
        with running("serve", told, tmp_path) as proxy:
            clients.extend(RawClient(told.port, timeout_s=60) for _ in range(count))
            for client in clients[::100]:
                client.send(ASK)
                assert client.read_answer().status == 200
            assert ask(told.port, GET).status == 200
            assert proxy.metric("relayed_requests_total") == 101
            descriptors = Path(f"/proc/{proxy.process.pid}/fd")
            assert len(list(descriptors.iterdir())) >= count
            for client in clients:
                client.leave()
            wait_until(lambda: len(list(descriptors.iterdir())) < 100, 60)
            assert ask(told.port, GET).status == 200
            assert proxy.stop() == 0
        eventually(lambda: upstream.live == 0)
    finally:
        for client in clients:
            client.leave()


@pytest.mark.timeout(120)
def test_file_descriptors_run_out(upstream: Upstream, store_path: Path, tmp_path: Path) -> None:
    """Of the relay's process: who can't be connected gets an honest error or none gets in; later all is well."""
    most = 80

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    upstream.answers(OK)
    told = Settings(upstream.url, f"sqlite:///{store_path}", more={"explain_rate": 0, "capture_rate": 0})
    with running("serve", told, tmp_path, before_start=limit) as proxy:
        clients = [RawClient(told.port, timeout_s=5) for _ in range(2 * most)]
        seen: dict[str, int] = {}
        for client in clients:
            try:
                client.send(GET)
                got = client.read_answer()
                word = (got.value(b"x-spex-error") or b"served").decode()
            except (ConnectionError, TimeoutError):
                word = "not let in"
            seen[word] = seen.get(word, 0) + 1
        assert set(seen) <= {"served", "too_many_open_files", "not let in"}
        assert len(seen) > 1, seen
        for client in clients:
            client.leave()
        eventually(lambda: upstream.live == 0)
        wait_until(lambda: ask(told.port, GET).status == 200, 30)
        assert all(ask(told.port, GET).status == 200 for _ in range(20))
        assert proxy.metric("faults_total") == 0
        assert proxy.stop() == 0
        assert "Traceback" not in proxy.log


# ---- any order, any pieces

NAMES = ["Accept", "X-A", "x-a", "Authorization", "traceparent", "X-Request-Id", "Cookie", "Content-Type", "x--b"]
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)
LINES = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=12)
BODIES = st.binary(max_size=300)
CUTS = st.lists(st.integers(0, 300), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place for place in places if 0 < place < len(data)})
    pieces = [data[start:end] for start, end in zip([0, *marks], [*marks, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Upstream, list[Proxy]]]:
    with Upstream() as upstream, relay(upstream.url) as watched, relay(upstream.url, capture_rate=0.0) as unwatched:
        yield upstream, [watched, unwatched]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=LINES, place=st.integers(0, 12), body=BODIES, cuts=CUTS, writes=CUTS, reply=BODIES, reply_cuts=CUTS,
    is_chunked=st.booleans(), is_reply_chunked=st.booleans(), which=st.booleans(),
)  # fmt: skip
def test_any_order_of_lines_and_any_pieces_arrive_as_they_were_sent(
    pair: tuple[Upstream, list[Proxy]],
    lines: list[tuple[str, str]],
    place: int,
    body: bytes,
    cuts: list[int],
    writes: list[int],
    reply: bytes,
    reply_cuts: list[int],
    is_chunked: bool,
    is_reply_chunked: bool,
    which: bool,
) -> None:
    """Both ways: lines in their order and spelling, bodies to the byte, however they are framed, cut and written."""
    upstream, proxies = pair
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    said = [f"{name}: {value}" for name, value in lines]
    said.insert(min(place, len(said)), framing)
    head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", "Host: proxy", *said]).encode("latin-1") + b"\r\n\r\n"
    sent = head + (b"".join(map(chunk, cut(body, cuts))) + LAST_CHUNK if is_chunked else body)
    if is_reply_chunked:
        upstream.answers(stream_head() + b"".join(map(chunk, cut(reply, reply_cuts))) + LAST_CHUNK)
    else:
        upstream.answers(*cut(answer(reply), reply_cuts))
    with RawClient(proxies[which].port) as client:
        for piece in cut(sent, writes):
            client.send(piece)
        got = client.read_answer()
    assert (got.status, got.body, got.is_whole) == (200, reply, True)
    seen = upstream.requests[-1]
    assert seen.body == body
    ours = {b"host", b"content-length", b"transfer-encoding"}
    assert [line for line in seen.lines if line[0].lower() not in ours] == [
        (name.encode("latin-1"), value.encode("latin-1").strip()) for name, value in lines
    ]
