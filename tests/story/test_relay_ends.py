"""Ends that a client must not mistake, and beginnings that must not get lost on the way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from spex_proxy.ports.counters import Counters
from spex_proxy.relay.client import Client
from spex_proxy.relay.house import House
from tests.story.raw_client import EndOfStream, RawClient, ask, chat_request, request
from tests.story.running import Proxy, relay
from tests.story.test_relay_exact_ids import BODY, events, model
from tests.story.upstream import ECHO, HANG, RESET, Step, Upstream, answer, chunk, eventually, stream_head

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Pay 10"}}]}\n\n'
OLD = chat_request(b"{}").replace(b"HTTP/1.1", b"HTTP/1.0", 1)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[Proxy]:
    with relay(upstream.url) as running:
        yield running


def everything(client: RawClient) -> tuple[bytes, type[ConnectionError]]:
    """All bytes until the connection ends, and how it does."""
    got = b""
    while True:
        try:
            got += client.read_exactly(1)
        except ConnectionError as end:
            return got, type(end)


# ---- ids are asked for: the request's body is gathered first


def test_a_kept_connection_that_closes_while_a_body_is_gathered_costs_nothing(upstream: Upstream) -> None:
    upstream.answers_by(model())  # type: ignore[arg-type] # a Respond
    with relay(upstream.url, exact_token_ids=True) as proxy, RawClient(proxy.port) as client:
        assert ask(proxy.port, chat_request(BODY)).status == 200
        whole = chat_request(BODY)
        client.send(whole[:-20])
        eventually(lambda: proxy.counters.value("watched_requests") == 2)
        upstream._loop.call_soon_threadsafe(lambda: [task.cancel() for task in upstream._tasks])
        eventually(lambda: not upstream._tasks)
        client.send(whole[-20:])
        assert client.read_answer().status == 200


def test_who_asks_whether_to_send_a_body_is_told_once(upstream: Upstream) -> None:
    upstream.answers_by(model())  # type: ignore[arg-type] # a Respond
    with relay(upstream.url, exact_token_ids=True) as proxy, RawClient(proxy.port) as client:
        whole = chat_request(BODY, "Expect: 100-continue")
        head, _, body = whole.partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        assert client.read_head().status == 100
        client.send(body)
        assert client.read_head().status == 200


def test_a_stream_that_says_its_length_passes_as_it_is(upstream: Upstream) -> None:
    """A gateway has gathered it. Ids can't be cut out of it any more: its length has gone to the client."""
    upstream.answers(answer(events(has_ids=True), content_type="text/event-stream"))
    with relay(upstream.url, exact_token_ids=True) as proxy:
        got = ask(proxy.port, chat_request(BODY[:-1] + b', "stream": true}'))
        assert got.is_whole
        assert got.body == events(has_ids=True)
        assert proxy.counters.value("exact_token_ids", "passed_sized") == 1


# ---- HTTP/1.0 knows no chunks: the connection's end is the answer's


def test_an_old_client_sees_that_an_answer_broke_off(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(stream_head(), chunk(EVENT), RESET)
    with RawClient(proxy.port) as client:
        client.send(OLD)
        got, end = everything(client)
    assert got.endswith(EVENT)
    assert end is ConnectionResetError


def test_an_old_client_sees_that_the_relay_stopped(upstream: Upstream) -> None:
    upstream.answers(stream_head(), chunk(EVENT), HANG)
    with relay(upstream.url) as proxy:
        client = RawClient(proxy.port)
        client.send(OLD)
        eventually(lambda: client.peek().endswith(EVENT))
    with client:
        assert everything(client)[1] is ConnectionResetError


def test_an_old_client_gets_a_whole_answer_in_good_order(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(stream_head(), chunk(EVENT), b"0\r\n\r\n")
    with RawClient(proxy.port) as client:
        client.send(OLD)
        got, end = everything(client)
    assert got.endswith(EVENT)
    assert end is EndOfStream


# ---- tunnels


def test_much_that_came_ahead_of_a_switch_arrives_and_so_does_what_follows(upstream: Upstream, proxy: Proxy) -> None:
    gate = upstream.gate()
    upstream.answers(b"", gate, reads_body=False)
    ahead, after = bytes(range(256)) * 800, b"after"

    async def respond(_: object) -> list[Step]:
        await gate.wait()
        return [b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", ECHO]

    upstream.answers_by(respond)
    with RawClient(proxy.port) as client:
        client.send(request("GET", "/t", "Connection: Upgrade", "Upgrade: echo") + ahead[:70_000])
        eventually(lambda: upstream.live == 1)
        gate.open()
        client.send(ahead[70_000:])
        assert client.read_head().status == 101
        client.send(after)
        assert client.read_exactly(len(ahead) + len(after)) == ahead + after


# ---- stopping


class Transport(asyncio.Transport):
    """The event loop's side of a connection whose peer reads slowly."""

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self.socket, self.peer = socket.socketpair()
        self.waiting = waiting
        self.ends: list[str] = []

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.socket if name == "socket" else default

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return bool(self.ends)

    def abort(self) -> None:
        self.ends.append("abort")


@pytest.mark.parametrize("waiting", [0, 1000])
async def test_an_answer_that_has_not_left_yet_is_no_idle_connection(waiting: int) -> None:
    transport = Transport(waiting)
    with transport.socket, transport.peer:
        client = Client(House(["http://127.0.0.1:9"], None, Counters()), set())  # type: ignore[arg-type] # not asked
        client.transport = transport
        assert client.is_idle is (waiting == 0)
        assert client.stop() is (waiting > 0)
        assert transport.ends


# ---- an upstream's trailers


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (b"", b""),
        (b"X-Sum: 1\r\n", b"X-Sum: 1\r\n"),
        (b"X-Sum: 1\r\nContent-Length: 5\r\nX-Other: 2\r\n", b"X-Sum: 1\r\nX-Other: 2\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b""),
        (b"x-spex-request-id: forged\r\n", b""),
    ],
)
def test_trailers_that_may_pass(upstream: Upstream, proxy: Proxy, sent: bytes, passed: bytes) -> None:
    end = b"0\r\n" + sent + b"\r\n"
    whole = stream_head() + chunk(EVENT) + end
    for cut in range(len(whole) - len(end) - 1, len(whole)):
        gate = upstream.gate()
        upstream.answers(whole[:cut], gate, whole[cut:])
        with RawClient(proxy.port) as client:
            client.send(chat_request(b"{}", "Connection: close"))
            eventually(lambda: upstream.sent == cut)  # noqa: B023 - at once
            gate.open()
            got, how = everything(client)
        assert got.partition(b"\r\n\r\n")[2] == chunk(EVENT) + b"0\r\n" + passed + b"\r\n"
        assert how is EndOfStream
        eventually(lambda: upstream.live == 0)
    assert proxy.counters.snapshot()["relayed_requests"] == {"2xx": len(end) + 1}


@pytest.mark.parametrize(
    "bad",
    [
        b"X: a\n\nHTTP/1.1 200 OK\nContent-Length: 3\n\nbad\r\n",
        b"no colon here\r\n",
        b"X: a\x00b\r\n",
        b"X : a\r\n",
    ],
)
def test_trailers_that_are_none_break_an_answer_off(upstream: Upstream, proxy: Proxy, bad: bytes) -> None:
    upstream.answers(stream_head(), chunk(EVENT), b"0\r\n" + bad + b"\r\n")
    with RawClient(proxy.port) as client:
        client.send(chat_request(b"{}"))
        got, _ = everything(client)
    passed = got.partition(b"\r\n\r\n")[2]  # how much, says how the pieces were read
    assert (chunk(EVENT) + b"0\r\n").startswith(passed)
    assert proxy.counters.snapshot()["relayed_requests"] == {"upstream_broken": 1}
