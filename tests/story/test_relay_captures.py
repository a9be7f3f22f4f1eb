"""`/v1/responses` and `/v1/messages`, streamed or not, through the real relay: relayed as they are, understood whole.

What is understood of chat and completions is in tests/unit/wire/test_chat.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from spex_proxy.facts.exchange import Choice, Exchange, Message, RawExchange, Skipped, ToolCall
from spex_proxy.wire.chat import parse
from tests.story.raw_client import ask, request
from tests.story.running import Proxy, relay
from tests.story.upstream import LAST_CHUNK, Step, Upstream, answer, chunk, eventually, stream_head

FOUND = {"type": "function", "name": "find", "description": "Finds.", "parameters": {"type": "object"}}
DEFINITION = Message(
    "tool_definition",
    '{"type": "function", "function": {"name": "find", "description": "Finds.", "parameters": {"type": "object"}}}',
    "find",
    "tool_definition",
)
CALL = Message("assistant", '{"name": "find", "arguments": {"q": "x"}}', "find", "tool_call")

# ---- /v1/responses

ASKS_RESPONSE: dict[str, Any] = {
    "model": "m",
    "instructions": "Be kind.",
    "tools": [FOUND],
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Where?"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "c1", "name": "find", "arguments": '{"q": "x"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "There."},
    ],
}
READ_RESPONSE = (
    DEFINITION,
    Message("system", "Be kind."),
    Message("user", "Where?"),
    Message("assistant", "Hm."),
    CALL,
    Message("tool", "There.", "find"),
)
SAID = {"type": "output_text", "text": "Over there.", "annotations": [], "logprobs": None}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "model": "m-served",
    "status": "completed",
    "output": [
        {"type": "reasoning", "id": "r", "content": [{"type": "reasoning_text", "text": "So."}], "summary": []},
        {"type": "message", "role": "assistant", "content": [SAID]},
        {"type": "function_call", "call_id": "c2", "name": "find", "arguments": '{"q": "y"}'},
    ],
    "usage": {"input_tokens": 40, "output_tokens": 9, "total_tokens": 49},
}
RESPONSE_CHOICE = Choice("Over there.", "completed", "So.", (ToolCall("find", '{"q": "y"}', "c2"),))
LOGPROBS = [{"token": "Over", "logprob": -0.5, "bytes": [79], "top_logprobs": []}]

# ---- /v1/messages

ASKS_MESSAGE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 10,
    "system": [{"type": "text", "text": "Be kind."}],
    "tools": [{"name": "find", "description": "Finds.", "input_schema": {"type": "object"}}],
    "messages": [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "tool_use", "id": "c1", "name": "find", "input": {"q": "x"}},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "There."}]},
    ],
}  # fmt: skip
READ_MESSAGE = READ_RESPONSE
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-served",
    "content": [
        {"type": "thinking", "thinking": "So.", "signature": "s"},
        {"type": "text", "text": "Over there."},
        {"type": "tool_use", "id": "c2", "name": "find", "input": {"q": "y"}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 30, "cache_read_input_tokens": 10, "output_tokens": 9},
}
MESSAGE_CHOICE = Choice("Over there.", "tool_use", "So.", (ToolCall("find", '{"q": "y"}', "c2"),))


def events(*said: dict[str, Any]) -> tuple[Step, ...]:
    wire = [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in said]
    return (stream_head(), *map(chunk, wire), LAST_CHUNK)


def plain(body: dict[str, Any]) -> tuple[Step, ...]:
    return (answer(json.dumps(body).encode()),)


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


STREAMED_RESPONSE = events(
    {"type": "response.created", "response": RESPONSE | {"status": "in_progress", "output": [], "usage": None}},
    {"type": "response.output_text.delta", "delta": "Over", "logprobs": LOGPROBS},
    {"type": "response.output_text.delta", "delta": " there.", "logprobs": []},
    {"type": "response.completed", "response": RESPONSE},
)
STREAMED_MESSAGE = events(
    {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
    *block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "So."}),
    *block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Over "},
           {"type": "text_delta", "text": "there."}),
    *block(2, {"type": "tool_use", "id": "c2", "name": "find", "input": {}},
           {"type": "input_json_delta", "partial_json": '{"q": '},
           {"type": "input_json_delta", "partial_json": '"y"}'}),
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server
        eventually(lambda: server.live == 0)


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[Proxy]:
    with relay(upstream.url) as running:
        yield running
    assert running.budget.held == 0


def captured(upstream: Upstream, proxy: Proxy, path: str, body: dict[str, Any], script: tuple[Step, ...]) -> Any:
    """What is understood of an exchange that was relayed as it is."""
    upstream.answers(*script)
    sent = request("POST", path, "Content-Type: application/json", body=json.dumps(body).encode())
    assert ask(proxy.port, sent).comparable() == ask(upstream.port, sent).comparable()
    eventually(lambda: proxy.outcomes)
    outcome = proxy.outcome()
    assert isinstance(outcome, RawExchange)
    return parse(outcome)


@pytest.mark.parametrize("is_streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_all_that_was_said_is_understood(path: str, is_streamed: bool, upstream: Upstream, proxy: Proxy) -> None:
    asked, texts, reply, stream, choice = {
        "/v1/responses": (ASKS_RESPONSE, READ_RESPONSE, RESPONSE, STREAMED_RESPONSE, RESPONSE_CHOICE),
        "/v1/messages": (ASKS_MESSAGE, READ_MESSAGE, MESSAGE, STREAMED_MESSAGE, MESSAGE_CHOICE),
    }[path]
    script = stream if is_streamed else plain(reply)
    found = captured(upstream, proxy, path, asked | {"stream": is_streamed}, script)
    assert isinstance(found, Exchange), found
    is_response = path == "/v1/responses"
    logprobs = (("Over", -0.5),) if is_response and is_streamed else None
    assert [(m.role, m.text, m.name, m.kind) for m in found.messages] == [
        (m.role, m.text, m.name, m.kind) for m in texts
    ]
    assert found.choices == (Choice(choice.text, choice.finish_reason, choice.reasoning, choice.tool_calls, logprobs),)
    assert (found.kind, found.streamed) == ("response" if is_response else "message", is_streamed)
    assert (found.prompt_tokens, found.output_tokens) == (40, 9)
    assert (found.upstream_id, found.model) == (reply["id"], "m-served")
    assert found.obstacle == "tool_calls"


IMAGES = {
    "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}]},
    "/v1/messages": {"messages": [{"role": "user", "content": [{"type": "image", "source": {"data": "x"}}]}]},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]
    },
}
AUDIO = {
    "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]
    },
}


@pytest.mark.parametrize("path", IMAGES)
def test_images_are_noted_and_skipped(path: str, upstream: Upstream, proxy: Proxy) -> None:
    found = captured(upstream, proxy, path, IMAGES[path], plain(MESSAGE | RESPONSE))
    assert isinstance(found, Skipped)
    assert found.reason == "has_images"


@pytest.mark.parametrize("path", AUDIO)
def test_audio_is_noted_and_skipped(path: str, upstream: Upstream, proxy: Proxy) -> None:
    found = captured(upstream, proxy, path, AUDIO[path], plain(RESPONSE))
    assert isinstance(found, Skipped)
    assert found.reason == "has_audio"


@pytest.mark.parametrize(
    ("path", "asked", "script"),
    [
        ("/v1/responses", ASKS_RESPONSE, events({"type": "response.failed", "response": {"error": {"code": "x"}}})),
        ("/v1/messages", ASKS_MESSAGE, events({"type": "error", "error": {"type": "overloaded_error"}})),
    ],
    ids=["responses", "messages"],
)
def test_an_error_in_the_stream_is_no_answer(
    path: str, asked: dict[str, Any], script: tuple[Step, ...], upstream: Upstream, proxy: Proxy
) -> None:
    found = captured(upstream, proxy, path, asked, script)
    assert isinstance(found, Skipped)
    assert found.reason == "error_in_stream"
