"""Asking for token ids in a client's name: what goes out, and that the client sees nothing of it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.exchange import Headers
from spex_proxy.wire.exact_ids import COUNTER, ExactIds, ask, event_without_ids, without_ids
from spex_proxy.wire.tap import TapLimits
from tests.unit.wire.exchanges import CHAT, JSON, SSE, head

BODY = b'{"messages": [{"role": "user", "content": "Hi"}] }\n'
LIMITS = TapLimits(request_bytes=10_000, answer_bytes=2_000)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["token_ids", "prompt_token_ids", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
IDS = st.lists(st.integers(0, 200_000), max_size=4)


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(value: Any) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


def chunk(delta: Any, ids: Any, **choice: Any) -> dict[str, Any]:
    """A chunk as vLLM 0.32 writes it: `token_ids` is null unless it was asked for."""
    one = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": ids} | choice
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [one]}


def asked(limits: TapLimits = LIMITS, headers: Headers = SSE, status: int = 200) -> tuple[ExactIds, list[str]]:
    counted: list[str] = []
    rewriter = ExactIds(head(), limits, lambda name, label: counted.append(label) if name == COUNTER else None)
    assert rewriter.request(BODY) == BODY.rstrip()[:-2] + b',"return_token_ids":true}\n'
    rewriter.begin(status, headers)
    return rewriter, counted


def through(rewriter: ExactIds, pieces: list[bytes]) -> bytes:
    return b"".join([*map(rewriter.feed, pieces), rewriter.finish()])


def cut(body: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(a, len(body)) for a in at), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


# --------------------------------------------------------------------------------------- the request


@given(st.dictionaries(st.text().filter(lambda k: k not in ("echo", "n", "include_reasoning")), JSON_VALUES))
def test_asking_adds_one_field_and_changes_nothing_else(fields: dict[str, Any]) -> None:
    request = fields | {"messages": []}
    request.pop("return_token_ids", None)
    request.pop("use_beam_search", None)
    for spaces in (None, 2):
        body = json.dumps(request, indent=spaces).encode() + b" \n"
        asking = ask(body)
        assert asking is not None
        assert json.loads(asking) == request | {"return_token_ids": True}
        assert asking.startswith(body.rstrip()[:-1].rstrip())


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[1]", b"{}", b'"messages"', b"\xff",
        b'{"messages": [], "return_token_ids": true}', b'{"messages": [], "return_token_ids": false}',
        b'{"prompt": "a", "echo": true}', b'{"messages": [], "n": 2}', b'{"messages": [], "use_beam_search": true}',
        b'{"messages": [], "include_reasoning": false}', '{"messages": []}'.encode("utf-16"), b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_would_change_more_than_the_ids_is_not_asked(body: bytes) -> None:
    assert ask(body) is None
    counted: list[str] = []
    rewriter = ExactIds(head(), LIMITS, lambda name, label: counted.append(label))
    assert rewriter.request(body) is body
    rewriter.begin(200, SSE)
    assert not rewriter.holds_head
    told = event(chunk({"content": "a"}, [1]))
    assert through(rewriter, [told]) == told  # the client may have asked for them itself
    assert counted == ["not_asked"]


def test_other_paths_and_packed_requests_are_not_asked() -> None:
    packed = head(CHAT, ((b"content-encoding", b"gzip"),))
    for where in (head("/v1/responses"), packed):
        assert ExactIds(where, LIMITS, lambda *_: None).request(BODY) is BODY


# ---------------------------------------------------------------------------------------- the answer

ROLE = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
UNASKED = [
    ROLE | {"prompt_token_ids": None},
    chunk({"content": 'He said "token_ids":[1] \\'}, None),
    chunk({"tool_calls": [{"function": {"arguments": '{"token_ids":[1,2]}'}}]}, None),
    chunk({}, None, logprobs={"content": []}),
    chunk({}, None, finish_reason="stop"),
    {"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 3}},
]
ASKED = [
    ROLE | {"prompt_token_ids": [1, 9690]},
    chunk({"content": 'He said "token_ids":[1] \\'}, [1, 2]),
    chunk({}, [3]),  # what a parser holds back: there for its ids only
    chunk({"tool_calls": [{"function": {"arguments": '{"token_ids":[1,2]}'}}]}, [4, 5]),
    chunk({}, [6], logprobs={"content": []}),
    chunk({}, [7]),
    chunk({}, [8], finish_reason="stop"),
    UNASKED[-1],
]
UNASKED_STREAM = b": hello\n\n" + b"".join(map(event, UNASKED)) + b"data: [DONE]\n\n"
ASKED_STREAM = b": hello\n\n" + b"".join(map(event, ASKED)) + b"data: [DONE]\n\n"


@given(st.lists(st.integers(0, len(ASKED_STREAM)), max_size=30))
def test_a_stream_is_what_it_would_have_been(at: list[int]) -> None:
    rewriter, counted = asked()
    assert not rewriter.holds_head
    assert through(rewriter, cut(ASKED_STREAM, at)) == UNASKED_STREAM
    assert counted == ["asked"]


def test_a_stream_byte_by_byte() -> None:
    rewriter, _ = asked()
    assert through(rewriter, [ASKED_STREAM[i : i + 1] for i in range(len(ASKED_STREAM))]) == UNASKED_STREAM


def test_every_event_goes_out_with_its_last_byte() -> None:
    rewriter, _ = asked()
    for told, wanted in zip(ASKED[:2], UNASKED[:2], strict=True):
        assert rewriter.feed(event(told)[:-1]) == b""
        assert rewriter.feed(event(told)[-1:]) == event(wanted)


def test_line_ends_and_event_types_stay_as_they_are() -> None:
    told = b"event: x\r\nid: 7\r\ndata:" + compact(chunk({"content": "a"}, [1])) + b"\r\n\r\n"
    wanted = b"event: x\r\nid: 7\r\ndata:" + compact(chunk({"content": "a"}, None)) + b"\r\n\r\n"
    assert through(asked()[0], [told[i : i + 1] for i in range(len(told))]) == wanted


def test_what_is_no_chunk_of_ours_passes() -> None:
    for odd in (b"data: [1\ndata: ]\n\n", b'data: {"token_ids": [1]}\n\n', b"data: token_ids\n\n", b"token_ids\n\n"):
        assert event_without_ids(odd) == odd
    assert through(asked()[0], [b"data: half an event"]) == b"data: half an event"


@given(JSON_VALUES, JSON_VALUES, IDS, IDS)
def test_only_the_ids_are_cut_out(other: Any, delta: Any, ids: list[int], prompt_ids: list[int]) -> None:
    said = {"kv": other, "prompt_token_ids": prompt_ids, "choices": [{"delta": delta, "token_ids": ids}]}
    cut_out, before = without_ids(compact(said))
    assert before == said
    assert json.loads(cut_out) == said | {"prompt_token_ids": None, "choices": [{"delta": delta, "token_ids": None}]}


def test_bytes_stay_as_they_were_around_the_ids() -> None:
    told = b'{ "choices":[{"token_ids" : [1,\n2 ],"text":"\\u00e9 1.0e0"}], "x":1.50 }'
    assert without_ids(told)[0] == b'{ "choices":[{"token_ids" : null,"text":"\\u00e9 1.0e0"}], "x":1.50 }'


@given(st.lists(st.integers(0, 400), max_size=6))
def test_a_plain_answer_waits_and_is_what_it_would_have_been(at: list[int]) -> None:
    told = {"choices": [{"message": {"content": "Hé"}, "token_ids": [1, 2]}], "prompt_token_ids": [3]}
    wanted = {"choices": [{"message": {"content": "Hé"}, "token_ids": None}], "prompt_token_ids": None}
    rewriter, counted = asked(headers=JSON)
    assert rewriter.holds_head
    pieces = cut(compact(told), at)
    assert [rewriter.feed(piece) for piece in pieces] == [b""] * len(pieces)
    assert rewriter.finish() == compact(wanted)
    assert counted == ["asked"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"choices": 1, "x": "token_ids"}'])
def test_a_plain_answer_without_ids_passes(body: bytes) -> None:
    assert through(asked(headers=JSON)[0], [body]) == body


def test_an_answer_that_is_too_large_passes_as_it_is() -> None:
    told = compact({"choices": [{"message": {"content": "x" * 3000}, "token_ids": [1]}]})
    for headers in (JSON, SSE):
        rewriter, counted = asked(headers=headers)
        out = [rewriter.feed(piece) for piece in cut(told, [1000, 2000, 2500])]
        assert out == [b"", b"", told[:2500], told[2500:]]
        assert not rewriter.holds_head
        assert rewriter.finish() == b""
        assert counted == ["asked", "passed_too_large"]


def test_a_packed_answer_passes_as_it_is() -> None:
    rewriter, counted = asked(headers=(*SSE, (b"Content-Encoding", b"br")))
    assert through(rewriter, [ASKED_STREAM]) == ASKED_STREAM
    assert counted == ["asked", "passed_encoded"]


def test_errors_and_other_types_pass_as_they_are() -> None:
    for headers, status in ((JSON, 400), (((b"content-type", b"text/plain"),), 200), ((), 200)):
        rewriter, _ = asked(headers=headers, status=status)
        assert not rewriter.holds_head
        assert through(rewriter, [b'{"choices":[{"token_ids":[1]}]}']) == b'{"choices":[{"token_ids":[1]}]}'
