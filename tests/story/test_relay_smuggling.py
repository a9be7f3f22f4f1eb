"""Requests that two parties could read in two ways: answered 400, the connection closed, nothing of them forwarded.

Each is followed by another request, as a smuggler sends it: that one must not arrive either. What was refused in its
head opens no connection to the upstream; what was refused in its body never becomes a whole request there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.story.raw_client import EndOfStream, RawClient, request
from tests.story.running import Proxy, relay
from tests.story.upstream import LAST_CHUNK, Upstream, answer, eventually

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
LONG = b"y" * 70_000


def post(*lines: bytes, body: bytes = b"", host: bytes = b"Host: a\r\n", first: bytes = b"POST /x HTTP/1.1") -> bytes:
    return first + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"

HEADS: dict[str, bytes] = {
    # two lengths
    "two equal lengths": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
    "two different lengths": post(b"Content-Length: 3", b"Content-Length: 5", body=b"abc"),
    "a list of lengths": post(b"Content-Length: 3, 3", body=b"abc"),
    "length and chunked": post(b"Content-Length: 3", CHUNKED, body=LAST_CHUNK),
    "chunked and length": post(CHUNKED, b"Content-Length: 3", body=LAST_CHUNK),
    # lengths that are no plain numbers
    "negative length": post(b"Content-Length: -3"),
    "length with a plus": post(b"Content-Length: +3", body=b"abc"),
    "length in hexadecimal": post(b"Content-Length: 0x3", body=b"abc"),
    "length with an underscore": post(b"Content-Length: 1_0", body=b"abc"),
    "length with a blank in it": post(b"Content-Length: 1 0", body=b"abc"),
    "length in other digits": post("Content-Length: ٣".encode(), body=b"abc"),
    "length of 64 bits and more": post(b"Content-Length: 18446744073709551619", body=b"abc"),
    "length without a number": post(b"Content-Length:", body=b"abc"),
    "length with a fraction": post(b"Content-Length: 3.0", body=b"abc"),
    # transfer codings
    "two chunked": post(CHUNKED, CHUNKED, body=LAST_CHUNK),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=LAST_CHUNK),
    "identity, chunked": post(b"Transfer-Encoding: identity, chunked", body=LAST_CHUNK),
    "identity and chunked": post(b"Transfer-Encoding: identity", CHUNKED, body=LAST_CHUNK),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=LAST_CHUNK),
    "identity": post(b"Transfer-Encoding: identity"),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=LAST_CHUNK),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"', body=LAST_CHUNK),
    "chunked behind a comma": post(b"Transfer-Encoding: , chunked", body=LAST_CHUNK),
    "chunked behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=LAST_CHUNK),
    "chunked in HTTP/1.0": post(CHUNKED, body=LAST_CHUNK, first=b"POST /x HTTP/1.0"),
    "no coding": post(b"Transfer-Encoding:"),
    # blanks, folds and line ends
    "a blank before the colon": post(b"Content-Length : 3", body=b"abc"),
    "a tab before the colon": post(b"Transfer-Encoding\t: chunked", body=LAST_CHUNK),
    "a folded line": post(b"X-A: 1", b" Content-Length: 3", body=b"abc"),
    "a line folded with a tab": post(b"Transfer-Encoding: x", b"\tchunked", body=LAST_CHUNK),
    "a folded first line": b"POST /x HTTP/1.1\r\n X-A: 1\r\nHost: a\r\n\r\n",
    "a bare LF between lines": post(b"X-A: 1\nContent-Length: 3", body=b"abc"),
    "bare LFs only": b"POST /x HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc",
    "a bare LF at the end": b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\nabc",
    "a bare CR between lines": post(b"X-A: 1\rContent-Length: 3", body=b"abc"),
    "a bare CR at the end of a line": b"POST /x HTTP/1.1\r\nHost: a\r\r\nContent-Length: 3\r\n\r\nabc",
    "a bare LF in the first line": b"POST /x\n HTTP/1.1\r\nHost: a\r\n\r\n",
    # names and values
    "a NUL in a name": post(b"Content-\x00Length: 3", body=b"abc"),
    "a NUL in a value": post(b"X-A: 1\x00", b"Content-Length: 3", body=b"abc"),
    "a NUL before the length": post(b"Content-Length: \x003", body=b"abc"),
    "an escape in a value": post(b"X-A: \x1b[0m"),
    "a DEL in a value": post(b"X-A: \x7f"),
    "no name": post(b": 3"),
    "no colon": post(b"Content-Length 3", body=b"abc"),
    "a name in brackets": post(b"(Content-Length): 3", body=b"abc"),
    "a name beyond ASCII": post("Content-Längth: 3".encode(), body=b"abc"),
    # the host
    "no host": post(host=b""),
    "two hosts": post(b"Host: b"),
    # the first line
    "two blanks": post(first=b"POST  /x HTTP/1.1"),
    "a tab": post(first=b"POST\t/x HTTP/1.1"),
    "a blank in front": post(first=b" POST /x HTTP/1.1"),
    "a blank behind": post(first=b"POST /x HTTP/1.1 "),
    "a blank in the target": post(first=b"POST /x y HTTP/1.1"),
    "a NUL in the target": post(first=b"POST /x\x00y HTTP/1.1"),
    "a target beyond ASCII": post(first="POST /ü HTTP/1.1".encode()),
    "no version": post(first=b"POST /x"),
    "HTTP/0.9": b"GET /x\r\n\r\n",
    "HTTP/1.2": post(first=b"POST /x HTTP/1.2"),
    "HTTP/1.10": post(first=b"POST /x HTTP/1.10"),
    "HTTP/2.0": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "small letters": post(first=b"POST /x http/1.1"),
    "a method with a colon": post(first=b"PO:ST /x HTTP/1.1"),
}
"""Refused with 400 for their head."""

OTHERWISE: dict[str, tuple[bytes, int]] = {
    "absolute form": (post(first=b"GET http://elsewhere/x HTTP/1.1"), 501),
    "absolute form of another scheme": (post(first=b"GET file:///etc/passwd HTTP/1.1"), 501),
    "authority form": (post(first=b"CONNECT elsewhere:443 HTTP/1.1"), 501),
    "asterisk form": (post(first=b"OPTIONS * HTTP/1.1"), 501),
    "a huge line": (post(b"X-Long: " + LONG), 431),
    "a huge target": (post(first=b"GET /" + LONG + b" HTTP/1.1"), 431),
    "very many lines": (post(*[b"X-%d: y" % number for number in range(10_000)]), 431),
}
"""Refused for their head with another status."""

BODIES: dict[str, bytes] = {
    "a size with a plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "a negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "a size with a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a size with an underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "a blank before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "a blank behind the size": b"3 \r\nabc\r\n0\r\n\r\n",
    "no size": b"\r\nabc\r\n0\r\n\r\n",
    "a size that is too large": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "a size in other letters": b"g\r\nabc\r\n0\r\n\r\n",
    "a chunk that is longer": b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk that is shorter": b"5\r\nabc\r\n0\r\n\r\n",
    "bare LFs": b"3\nabc\n0\n\n",
    "a bare LF behind the size": b"3\nabc\r\n0\r\n\r\n",
    "a bare LF behind the data": b"3\r\nabc\n0\r\n\r\n",
    "a bare CR behind the size": b"3\rabc\r\n0\r\n\r\n",
    "a bare LF in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "a bare CR in an extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "a NUL in an extension": b"3;a=\x00\r\nabc\r\n0\r\n\r\n",
    "an endless extension": b"3;" + b"x" * 20_000,
    "endless trailers": b"0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "a trailer with a blank before its colon": b"0\r\nX-A : 1\r\n\r\n",
    "a folded trailer": b"0\r\nX-A: 1\r\n 2\r\n\r\n",
    "a trailer with a NUL": b"0\r\nX-A: \x00\r\n\r\n",
    "a trailer with a bare LF": b"0\r\nX-A: 1\nX-B: 2\r\n\r\n",
}
"""Refused with 400 for a chunked body."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module", params=["watched", "unwatched"])
def proxy(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Proxy]:
    with relay(upstream.url, capture_rate=1.0 if request.param == "watched" else 0.0) as running:
        yield running
    assert running.budget.held == 0
    assert running.counters.snapshot()["faults"] == {}


def refused(upstream: Upstream, proxy: Proxy, sent: bytes) -> int:
    """The status of the one answer that comes, and nothing but it."""
    upstream.answers(answer(b"{}"))
    with RawClient(proxy.port) as client:
        client.send(sent + SMUGGLED)
        got = client.read_answer()
        assert got.value(b"x-spex-error") is not None
        if got.status == 501:  # no ambiguity, only a target that we do not relay: the next request is one of its own
            assert client.read_answer().status == 200
        else:
            with pytest.raises(EndOfStream):
                client.read_exactly(1)
    assert [seen.target for seen in upstream.requests] in ([], [b"/smuggled"] if got.status == 501 else [])
    return got.status


@pytest.mark.parametrize("case", HEADS)
def test_ambiguous_heads(case: str, upstream: Upstream, proxy: Proxy) -> None:
    counted = proxy.counters.value("relayed_requests", "ambiguous_request")
    before = upstream.accepted
    assert refused(upstream, proxy, HEADS[case]) == 400
    assert upstream.accepted == before, "a connection to the upstream was opened for it"
    assert proxy.counters.value("relayed_requests", "ambiguous_request") == counted + 1


@pytest.mark.parametrize("case", HEADS)
def test_ambiguous_heads_in_pieces(case: str, upstream: Upstream, proxy: Proxy) -> None:
    """Two bytes at a time, behind a request that is in order, on the same connection."""
    upstream.answers(answer(b"{}"))
    with RawClient(proxy.port) as client:
        client.send(request("GET", "/first"))
        assert client.read_answer().status == 200
        try:
            for start in range(0, len(HEADS[case]), 2):
                client.send(HEADS[case][start : start + 2])
        except ConnectionError:  # refused before all of it was sent
            pass
        assert client.read_answer().status == 400
    assert [seen.target for seen in upstream.requests] == [b"/first"]


@pytest.mark.parametrize("case", OTHERWISE)
def test_heads_that_are_refused_otherwise(case: str, upstream: Upstream, proxy: Proxy) -> None:
    sent, status = OTHERWISE[case]
    assert refused(upstream, proxy, sent) == status


@pytest.mark.parametrize("case", BODIES)
def test_ambiguous_bodies(case: str, upstream: Upstream, proxy: Proxy) -> None:
    counted = proxy.counters.value("relayed_requests", "ambiguous_request")
    assert refused(upstream, proxy, post(CHUNKED, body=BODIES[case])) == 400
    assert proxy.counters.value("relayed_requests", "ambiguous_request") == counted + 1
    eventually(lambda: upstream.live == 0)


def test_what_is_odd_but_clear_goes_on_in_plain_form(upstream: Upstream, proxy: Proxy) -> None:
    """Extensions, leading zeros, trailers that speak of framing: understood, and not passed on."""
    upstream.answers(answer(b"{}"))
    odd = b"003;a=b;c\r\nabc\r\n00A\r\n0123456789\r\n000;z\r\nContent-Length: 5\r\nX-Sum: 1\r\n\r\n"
    with RawClient(proxy.port) as client:
        client.send(post(b"transfer-encoding:\t Chunked ", body=odd) + request("GET", "/next"))
        assert [client.read_answer().status for _ in range(2)] == [200, 200]
    assert upstream.requests[0].body == b"abc0123456789"
    assert upstream.requests[0].values(b"transfer-encoding") == [b"chunked"]
    assert upstream.requests[0].values(b"content-length") == []
    assert [seen.target for seen in upstream.requests] == [b"/x", b"/next"]


def test_empty_lines_before_a_request_are_overlooked(upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(answer(b"{}"))
    with RawClient(proxy.port) as client:
        client.send(b"\r\n\r\n" + request("GET", "/x"))
        assert client.read_answer().status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab",
        b"HTTP/1.1 200 OK\nx: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: 1\r\n folded\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx : 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["two lengths", "length and chunked", "plus", "bare LF", "folded", "blank before colon", "two codings"],
)
def test_ambiguous_answers_reach_no_client(head: bytes, upstream: Upstream, proxy: Proxy) -> None:
    upstream.answers(head)
    with RawClient(proxy.port) as client:
        client.send(request("GET", "/x"))
        got = client.read_answer()
    assert (got.status, got.value(b"x-spex-error")) == (502, b"upstream_invalid_answer")
    eventually(lambda: upstream.live == 0)
