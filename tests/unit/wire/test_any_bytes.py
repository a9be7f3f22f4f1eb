"""Whatever a client or a server sends: an Exchange, or Skipped with a known reason. Never an exception."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.exchange import Exchange, Headers, Skipped
from spex_proxy.store.codec import decode_content, encode_content
from spex_proxy.wire.chat import parse
from spex_proxy.wire.tap import SKIP_REASONS
from tests.unit.wire.exchanges import CHAT, COMPLETION, JSON, SSE, raw

FIELDS = [
    "messages", "role", "content", "type", "text", "name", "tool_calls", "tool_call_id", "function", "id",
    "prompt", "echo", "n", "model", "choices", "index", "message", "delta", "finish_reason", "token_ids",
    "input", "instructions", "output", "status", "system", "stop_reason", "input_tokens", "output_text",
    "tool_use", "tool_result", "thinking", "logprobs", "token", "logprob", "arguments", "tools", "reasoning_text",
    "prompt_token_ids", "usage", "prompt_tokens", "completion_tokens", "error", "object", "reasoning", "audio",
]  # fmt: skip
WORDS = ["", "user", "text", "stop", "error", "Hi", "\x00", "\ud800", "💥"]
LEAVES = st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.sampled_from(WORDS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=25,
)
MESSAGES = st.fixed_dictionaries({"messages": st.lists(VALUES, max_size=3)}) | VALUES
CHOICES = st.fixed_dictionaries(
    {"index": st.just(0)},
    optional={
        "message": VALUES,
        "delta": VALUES,
        "text": VALUES,
        "finish_reason": VALUES,
        "token_ids": VALUES,
    },
)
REPLIES = st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=2)}, optional={"usage": VALUES}) | VALUES
ENCODINGS = st.sampled_from([b"gzip", b"deflate", b"br", b"identity", b"", b"gzip, deflate"])
HEADERS: st.SearchStrategy[Headers] = st.sampled_from([JSON, SSE]) | st.builds(
    lambda kind, encoding: (*kind, (b"content-encoding", encoding)), st.sampled_from([JSON, SSE]), ENCODINGS
)
SPOKEN = [CHAT, COMPLETION, "/v1/responses", "/v1/messages"]
PATHS = st.sampled_from([*SPOKEN, "/other"])


def body(value: Any, as_event: bool) -> bytes:
    text = json.dumps(value).encode()
    return b"data: " + text + b"\n\n" if as_event else text


def assert_is_answered(request: bytes, answer: bytes, headers: Headers, path: str) -> None:
    result = parse(raw(request, answer, headers=headers, path=path))
    if isinstance(result, Skipped):
        assert result.reason in SKIP_REASONS
        return
    assert isinstance(result, Exchange)
    assert result.choices
    assert result.choices[0].text == result.output_text
    assert any(choice.text or choice.reasoning or choice.tool_calls for choice in result.choices)
    # What is kept can be written again, in JSON and in UTF-8.
    json.dumps(dict(result.request), allow_nan=False, ensure_ascii=False).encode()
    "".join([result.output_text, result.model, *(m.text for m in result.messages)]).encode()
    assert decode_content(encode_content(result), "it")["choices"] == result.choices


@given(st.binary(), st.binary(), HEADERS, PATHS)
def test_any_bytes(request: bytes, answer: bytes, headers: Headers, path: str) -> None:
    assert_is_answered(request, answer, headers, path)


@given(MESSAGES | VALUES, REPLIES, st.booleans(), st.sampled_from(SPOKEN))
def test_any_json(request: Any, reply: Any, streamed: bool, path: str) -> None:
    assert_is_answered(body(request, False), body(reply, streamed), SSE if streamed else JSON, path)


ASKED = body({"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", "input": "Hi"}, False)


@given(st.lists(REPLIES, max_size=4), st.sampled_from(SPOKEN))
def test_any_stream_after_a_good_request(replies: list[Any], path: str) -> None:
    assert_is_answered(ASKED, b"".join(body(reply, True) for reply in replies), SSE, path)
