"""The decoder of event streams: the standard's rules, and indifference to where the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import BadReply
from spex_proxy.wire.sse import Event, SseDecoder

STREAMS: dict[str, tuple[bytes, list[Event]]] = {
    "one event": (b"data: a\n\n", [Event(b"a")]),
    "no space after the colon": (b"data:a\n\n", [Event(b"a")]),
    "only one space goes": (b"data:  a \n\n", [Event(b" a ")]),
    "data of several lines": (b"data: a\ndata:\ndata: b\n\n", [Event(b"a\n\nb")]),
    "a named event": (b"event: ping\ndata: a\n\ndata: b\n\n", [Event(b"a", b"ping"), Event(b"b")]),
    "comments": (b": keep-alive\n\n:\ndata: a\n: more\n\n", [Event(b"a")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [Event(b"a"), Event(b"b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [Event(b"a"), Event(b"b")]),
    "line ends mixed": (b"data: a\r\ndata: b\n\rdata: c\r\n\n", [Event(b"a\nb"), Event(b"c")]),
    "a field without a value": (b"data\n\n", [Event(b"")]),
    "unknown fields": (b"id: 1\nretry: 10\nfoo: x\ndata: a\n\n", [Event(b"a")]),
    "no data, no event": (b"event: ping\n\n\n\n", []),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
    "other line breaks of Unicode": (
        "data: a\u2028b\x0bc\x85\n\n".encode(),
        [Event("a\u2028b\x0bc\x85".encode())],
    ),
    "not UTF-8": (b"data: \xff\xfe\n\n", [Event(b"\xff\xfe")]),
    "cut off at the end": (b"data: a\n\ndata: b\n", [Event(b"a")]),
    "nothing": (b"", []),
}


def decode(pieces: list[bytes]) -> list[Event]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@pytest.mark.parametrize("name", STREAMS)
def test_whole_and_byte_by_byte(name: str) -> None:
    stream, events = STREAMS[name]
    assert decode([stream]) == events
    assert decode([stream[i : i + 1] for i in range(len(stream))]) == events


@given(st.lists(st.sampled_from([b"data: a", b"data", b":", b"\r", b"\n", b"\r\n", b"event: x", b"\xc3", b""])))
def test_where_the_bytes_are_cut_does_not_matter(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    assert decode(pieces) == decode([stream]) == decode([stream[i : i + 1] for i in range(len(stream))])


@given(st.lists(st.binary()))
def test_any_bytes_are_decoded(pieces: list[bytes]) -> None:
    assert decode(pieces) == decode([b"".join(pieces)])


def test_an_event_is_there_as_soon_as_its_last_byte_is() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [Event(b"a")]
    assert decoder.is_between_events
    assert decoder.feed(b"\ndata: b") == []
    assert not decoder.is_between_events


@pytest.mark.parametrize("flood", [b"x", b"data: x\n", b"data\n"], ids=["one line", "many lines", "empty lines"])
def test_what_is_held_is_bounded(flood: bytes) -> None:
    decoder = SseDecoder(max_event_bytes=1000)

    def feed() -> None:
        for _ in range(2000):
            decoder.feed(flood)

    with pytest.raises(BadReply, match="longer than 1000 bytes"):
        feed()


def test_the_bound_is_for_one_event_and_not_for_the_stream() -> None:
    decoder = SseDecoder(max_event_bytes=100)
    for _ in range(1000):
        assert decoder.feed(b"data: " + b"x" * 90 + b"\n\n") == [Event(b"x" * 90)]
