"""The request that arrives at the upstream equals the one that was sent: method, target, lines, body.

Not compared: hop-by-hop lines and our own; `Host`, which names the upstream as it would
without us; the casing of names; chunk borders of an upload; `Content-Length: 0`, which a
client may leave out where there is no body.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.story.raw_client import EndOfStream, RawClient, ask, chat_request, request
from tests.story.running import Proxy, relay
from tests.story.upstream import CLOSE, ECHO, LAST_CHUNK, Upstream, answer, chunk, eventually

OK = answer(b"{}")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module", params=["watched", "unwatched"])
def proxy(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Proxy]:
    with relay(upstream.url, capture_rate=1.0 if request.param == "watched" else 0.0) as running:
        yield running
    assert running.budget.held == 0


TARGETS = [
    "/",
    "/v1/models",
    "/v1/chat/completions?a=1&b=%C3%A9&a=2",
    "/v1/x%2Fy/%7Euser/a%20b;p=1,2",
    "/a/../b/./c//d///",
    "//host-like/path",
    "/x?q=a+b&&=&%zz&u=[1]{2}|'\"&v=?/@:",
    "/x?only-a-key",
    "/x:y@z/!$&'()*+,;=",
    "/%e4%bd%a0?%E4%BD%A0=%00",
]


@pytest.mark.parametrize("target", TARGETS)
def test_the_target_arrives_untouched(target: str, upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(OK)
    assert ask(proxy.port, request("GET", target)).status == 200
    assert upstream.requests[0].target == target.encode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("body", [None, b"", b"\x00\xff not JSON"])
def test_every_method_arrives_with_its_body(method: str, body: bytes | None, upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(OK if method != "HEAD" else b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
    assert ask(proxy.port, request(method, "/any", body=body)).status == 200
    seen = upstream.requests[0]
    assert (seen.method, seen.body) == (method.encode(), body or b"")


def test_header_lines_arrive_as_sent(upstream: Upstream, proxy: Proxy) -> None:
    kept = [
        "Authorization: Bearer sk-1",
        "Content-Type: application/json",
        "Accept: text/event-stream",
        "User-Agent: openai/2.0",
        "Cookie: a=1; b=2",
        "X-Request-Id: abc",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: a=1",
        "tracestate: b=2",
        "X-Twice: 1",
        "X-Twice: 2",
        "X-Empty:",
        "X-Name: Grüße".encode().decode("latin-1"),
        "X-Long: " + "y" * 20_000,
        "Accept-Encoding: br",
        "Via: 1.1 somebody",
        "X-Forwarded-For: 10.0.0.1",
        "Priority: u=1",
    ]
    dropped = [
        "Connection: keep-alive, X-Only-For-You",
        "X-Only-For-You: secret",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Upgrade: h2c",
        "Proxy-Connection: keep-alive",
        "X-Spex-Explain: no",
        "X-SPEX-Anything: 1",
    ]
    upstream.answers(OK)
    ask(proxy.port, chat_request(b"{}", *kept, *dropped))
    seen = upstream.requests[0]
    arrived = sorted((name.lower(), value) for name, value in seen.lines)
    pairs = [line.encode("latin-1").partition(b":") for line in kept]
    expected = [(name.lower(), value.strip()) for name, _, value in pairs]
    expected += [
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"host", upstream.url.removeprefix("http://").encode()),
    ]
    assert arrived == sorted(expected)
    twice = [value for name, value in seen.lines if name.lower() == b"x-twice"]
    assert twice == [b"1", b"2"]


def test_nothing_is_added_to_a_bare_request(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(OK)
    ask(proxy.port, request("GET", "/bare"))
    assert [name.lower() for name, _ in upstream.requests[0].lines] == [b"host"]


def test_big_uploads_arrive_whole(upstream: Upstream, proxy: Proxy) -> None:
    body = bytes(range(256)) * 40_000  # 10 MB: over the tap's limit, and no business of production
    upstream.answers(OK)
    assert ask(proxy.port, chat_request(body)).status == 200
    assert upstream.requests[0].body == body
    assert upstream.requests[0].values(b"content-length") == [str(len(body)).encode()]


def test_chunked_uploads_arrive_whole(upstream: Upstream, proxy: Proxy) -> None:
    head = request("POST", "/v1/chat/completions", "Transfer-Encoding: chunked")
    for pieces in ([b"{", b'"a": 1', b"}"], [b"x" * 100_000] * 20, []):
        upstream.answers(OK)
        assert ask(proxy.port, head + b"".join(map(chunk, pieces)) + LAST_CHUNK).status == 200
        assert upstream.requests[0].body == b"".join(pieces)
        assert upstream.requests[0].values(b"transfer-encoding") == [b"chunked"]
        assert upstream.requests[0].values(b"content-length") == []


def test_uploads_are_streamed_and_not_collected(upstream: Upstream, proxy: Proxy) -> None:
    gate = upstream.gate()
    upstream.answers(gate, answer(b"early"), reads_body=False)
    with RawClient(proxy.port) as client:
        client.send(request("POST", "/upload", "Content-Length: 200000") + b"x" * 100_000)
        eventually(lambda: upstream.requests)  # the upstream has the head while the client has half its body
        gate.open()
        assert client.read_answer().body == b"early"


def test_an_answer_may_come_before_the_upload_ends(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(answer(b'{"error": {}}', status="413 Content Too Large"), reads_body=False)
    with RawClient(proxy.port) as client:
        client.send(request("POST", "/v1/chat/completions", "Content-Length: 1000000") + b"x" * 1000)
        assert client.read_answer().status == 413


def test_expect_100_continue(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(OK)
    with RawClient(proxy.port) as client:
        client.send(request("POST", "/v1/chat/completions", "Expect: 100-continue", "Content-Length: 2"))
        assert client.read_head().status == 100
        client.send(b"{}")
        assert client.read_answer().status == 200
    assert upstream.requests[0].body == b"{}"


def test_more_than_a_hundred_requests_run_at_once(upstream: Upstream, proxy: Proxy) -> None:
    """Client pools like to queue number 101 silently."""
    gate = upstream.gate()
    upstream.answers(gate, OK)
    clients = [RawClient(proxy.port) for _ in range(150)]
    try:
        for client in clients:
            client.send(chat_request(b"{}"))
        eventually(lambda: upstream.live == 150)
        gate.open()
        assert all(client.read_answer().status == 200 for client in clients)
    finally:
        for client in clients:
            client.leave()


def test_an_upgrade_becomes_a_tunnel(upstream: Upstream, proxy: Proxy) -> None:
    frames = b"\x81\x85" + bytes(range(256))
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Any: 1\r\n\r\n"
    gate = upstream.gate()
    upstream.answers(switch + frames, gate, b"more", CLOSE)
    lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    with RawClient(proxy.port) as client:
        client.send(request("GET", "/v1/realtime", *lines))
        head = client.read_head()
        assert (head.status, head.value(b"upgrade"), head.value(b"connection")) == (101, b"websocket", b"Upgrade")
        assert head.value(b"x-any") == b"1"
        assert client.read_exactly(len(frames)) == frames
        gate.open()
        assert client.read_exactly(4) == b"more"
        with pytest.raises(EndOfStream):
            client.read_exactly(1)
    seen = upstream.requests[0]
    assert (seen.values(b"upgrade"), seen.values(b"connection")) == ([b"websocket"], [b"Upgrade"])
    eventually(lambda: upstream.live == 0)


def test_a_tunnel_carries_what_the_client_sends(upstream: Upstream, proxy: Proxy) -> None:
    """Also what it sent before it was answered; and its leaving closes the other side."""
    upstream.answers(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", ECHO)
    with RawClient(proxy.port) as client:
        client.send(request("GET", "/t", "Connection: Upgrade", "Upgrade: echo") + b"early")
        assert client.read_head().status == 101
        assert client.read_exactly(5) == b"early"
        for size in (1, 100, 300_000):
            client.send(b"x" * size)
            assert client.read_exactly(size) == b"x" * size
    eventually(lambda: upstream.live == 0)


def test_an_upgrade_that_is_turned_down_is_an_answer_like_any_other(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(answer(b"no", status="426 Upgrade Required"))
    with RawClient(proxy.port) as client:
        for _ in range(2):
            client.send(request("GET", "/t", "Connection: Upgrade", "Upgrade: websocket"))
            assert client.read_answer().status == 426


@pytest.mark.parametrize("target", ["*", "*@127.0.0.1:{port}/", "*.example/", "@127.0.0.1:{port}/"])
def test_targets_that_would_change_the_address_are_refused(target: str, upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(OK)
    with Upstream() as elsewhere:
        elsewhere.answers(OK)
        refused = ask(proxy.port, request("OPTIONS", target.format(port=elsewhere.port)))
        assert refused.status in (400, 501)
        assert elsewhere.requests == []
    assert upstream.requests == []
