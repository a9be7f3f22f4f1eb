"""A head that is not read again says what reading it again would have said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.relay.heads import BadMessage, read_request
from spex_proxy.relay.repeats import Repeats

LINES = st.sampled_from(
    [
        b"Host: a", b"HOST:b", b"Accept: */*", b"Content-Length: 3", b"content-length:12", b"Content-Length: 0",
        b"Content-Length: 3 ", b"Content-Length: 003", b"Content-Length: 1234567890123456789", b"Content-Length: 3x",
        b"x-note: \r\n content-length: 4", b"X-Of: content-length: 5", b"Connection: keep-alive",
        b"Connection: close, X-Of", b"Connection: upgrade", b"Upgrade: websocket",
        b"Expect: 100-continue", b"X-Spex-Explain: yes", b"Transfer-Encoding: chunked",
        b"traceparent: 00-1", b"traceparent: 00-2",
    ]
)  # fmt: skip
DIGITS = [b"0", b"1", b"3", b"77", b"0007", b"9" * 18, b"9" * 19, b"", b"+3", b"3\r\nA: b"]
FIRST = st.sampled_from([b"POST /a HTTP/1.1", b"POST /b HTTP/1.1", b"GET /a HTTP/1.0"])


@st.composite
def heads(draw: st.DrawFn) -> list[bytes]:
    """Some that have nearly all in common: one of them, with other digits, or with one line more."""
    lines = [draw(FIRST), *draw(st.lists(LINES, max_size=6))]
    first = b"\r\n".join(lines) + b"\r\n"
    alike = [first]
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["same", "digits", "line", "other"]))
        if kind == "digits":
            digits = draw(st.sampled_from(DIGITS))
            alike.append(first.replace(b": 3", b": " + digits).replace(b":12", b":" + digits))
        elif kind == "line":
            alike.append(first + draw(LINES) + b"\r\n")
        else:
            alike.append(first if kind == "same" else draw(FIRST) + b"\r\nHost: a\r\nContent-Length: 3\r\n")
    return alike


@given(heads())
def test_a_connection_reads_each_head_as_if_it_were_its_first(sent: list[bytes]) -> None:
    connection = Repeats()
    for head in sent:
        try:
            expected = read_request(head)
        except BadMessage as trouble:
            with pytest.raises(BadMessage, match=str(trouble)):
                connection.read(head)
        else:
            assert connection.read(head) == expected


def test_other_digits_need_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Repeats()
    asked = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nAccept: */*\r\n"
    connection.read(asked % 3)
    expected = [read_request(asked % length) for length in (3, 4711, 5)]
    monkeypatch.setattr("spex_proxy.relay.repeats.read_request", None)
    assert [connection.read(asked % length) for length in (3, 4711, 5)] == expected
