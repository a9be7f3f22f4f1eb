"""What a head may look like, what it says of its body, and which of its lines pass."""

from __future__ import annotations

import pytest

from spex_proxy.relay.heads import CHUNKED, TO_THE_END, BadMessage, pairs, passing_trailers, read_request, read_response


def head(*lines: str, first: str = "POST /x HTTP/1.1", host: bool = True) -> bytes:
    return "".join(f"{line}\r\n" for line in [first, *(["Host: proxy"] if host else []), *lines]).encode("latin-1")


def forwarded(*lines: str, first: str = "POST /x HTTP/1.1", host: bool = True) -> list[bytes]:
    request = read_request(head(*lines, first=first, host=host))
    sent = request.bytes_for(b"", b"upstream:8000")
    assert sent.endswith(b"\r\n\r\n")
    return sent[:-4].split(b"\r\n")


def test_lines_pass_in_their_order_and_spelling() -> None:
    lines = ["ACCEPT: */*", "x-two: 1", "X-Two:  2 ", "x-old: \xe9", "Content-Length: 3", "x-empty:"]
    assert forwarded(*lines) == [
        b"POST /x HTTP/1.1", b"Host: upstream:8000",
        b"ACCEPT: */*", b"x-two: 1", b"X-Two:  2 ", b"x-old: \xe9", b"Content-Length: 3", b"x-empty:",
    ]  # fmt: skip


def test_hop_by_hop_lines_and_ours_do_not_pass() -> None:
    lines = ["Connection: close, X-Hop", "x-hop: 1", "Keep-Alive: 5", "TE: trailers", "Proxy-Connection: x"]
    lines += ["Expect: 100-continue", "X-Spex-Explain: yes", "x-spex-: 1", "Upgrade: h2c", "Accept: a"]
    assert forwarded(*lines) == [b"POST /x HTTP/1.1", b"Host: upstream:8000", b"Accept: a"]


def test_the_host_is_rewritten_where_it_stands() -> None:
    assert forwarded("A: 1", "hOsT: else", "B: 2", host=False)[1:] == [b"A: 1", b"hOsT: upstream:8000", b"B: 2"]
    assert forwarded("A: 1", first="GET / HTTP/1.0", host=False) == [
        b"GET / HTTP/1.1", b"Host: upstream:8000", b"A: 1"
    ]  # fmt: skip


def test_connection_can_not_take_the_framing_away() -> None:
    assert b"Content-Length: 3" in forwarded("Connection: content-length, host, transfer-encoding", "Content-Length: 3")


def test_framing_of_requests() -> None:
    assert read_request(head()).length == 0
    assert read_request(head("Content-Length: 0012")).length == 12
    assert read_request(head("Transfer-Encoding: Chunked")).length == CHUNKED
    assert forwarded("Transfer-Encoding: chunked")[-1] == b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [
        ("1.1", None, True), ("1.1", "close", False), ("1.1", "x, Close", False), ("1.1", "keep-alive", True),
        ("1.0", None, False), ("1.0", "Keep-Alive", True), ("1.0", "close, keep-alive", False),
    ],
)  # fmt: skip
def test_staying_open(version: str, connection: str | None, stays: bool) -> None:
    lines = [] if connection is None else [f"Connection: {connection}"]
    assert read_request(head(*lines, first=f"GET / HTTP/{version}")).keep_alive is stays


def test_upgrades() -> None:
    lines = ["Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"]
    assert read_request(head(*lines, first="GET /v1/realtime HTTP/1.1")).upgrades
    assert forwarded(*lines)[-2:] == [b"Connection: Upgrade", b"Upgrade: websocket"]
    for other in (
        ["Upgrade: websocket"],
        ["Connection: upgrade"],
        ["Connection: upgrade", "Upgrade: h2c"],
        ["Connection: upgrade", "Upgrade: websocket", "Content-Length: 1"],
    ):
        assert not read_request(head(*other)).upgrades
        assert not any(line.lower().startswith((b"upgrade", b"connection")) for line in forwarded(*other))


def answered(*lines: str, first: str = "HTTP/1.1 200 OK", method: bytes = b"GET") -> tuple[int, bool, bytes]:
    found = read_response(head(*lines, first=first, host=False), method)
    return found.length, found.keep_alive, found.passing


def test_framing_of_answers() -> None:
    assert answered("Content-Length: 3") == (3, True, b"\r\nContent-Length: 3")
    assert answered("transfer-encoding: chunked") == (CHUNKED, True, b"")
    assert answered("Connection: close") == (TO_THE_END, False, b"")
    assert answered("Content-Length: 3", method=b"HEAD")[0] == 0
    assert answered("Content-Length: 3", first="HTTP/1.1 304 Not Modified") == (0, True, b"\r\nContent-Length: 3")
    assert answered("Content-Length: 3", first="HTTP/1.0 200")[:2] == (3, False)
    assert answered("Connection: keep-alive, X-Hop", "X-Hop: 1", "Set-Cookie: a", "Set-Cookie: b", "x-spex-error: y")[
        2
    ] == (b"\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nx-spex-error: y")


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 3", "Content-Length: 3"],
        ["Content-Length: 3", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Content-Length: -1"],
        [" folded"],
        ["name : value"],
    ],
)
def test_answers_that_could_be_read_in_two_ways(lines: list[str]) -> None:
    with pytest.raises(BadMessage):
        answered(*lines)


def test_pairs_and_trailers() -> None:
    assert pairs(b"\r\nA:  1 \r\nb:\r\nA: x:y") == ((b"a", b"1"), (b"b", b""), (b"a", b"x:y"))
    assert passing_trailers(b"X-Sum: 1\r\nHost: a\r\nContent-Length: 3\r\nx-spex-a: 1\r\n") == b"X-Sum: 1\r\n"
    assert passing_trailers(b"") == b""
    with pytest.raises(BadMessage):
        passing_trailers(b"a : b\r\n")
