"""What is understood of an exchange, and under which reason the rest is skipped."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from spex_proxy.facts.exchange import Choice, Exchange, Message, RawExchange, Skipped, ToolCall
from spex_proxy.wire.chat import parse
from spex_proxy.wire.tap import SKIP_REASONS
from tests.unit.wire.exchanges import ASKED, CHAT, COMPLETION, SSE, delta, raw, reply, said, stream


def understood(exchange: RawExchange) -> Exchange:
    result = parse(exchange, "p")
    assert isinstance(result, Exchange), result
    return result


def test_a_plain_chat_answer() -> None:
    exchange = understood(raw(answer=reply(said("Hello"))))
    assert exchange == Exchange(
        id="id-1",
        project="p",
        kind="chat",
        model="m-served",
        messages=(Message("user", "Hi"),),
        output_text="Hello",
        finish_reason="stop",
        upstream_id="chatcmpl-8a2b",
        streamed=False,
        received_at=exchange.received_at,
        first_byte_s=0.1,
        duration_s=0.5,
        prompt_tokens=31,
        output_tokens=4,
        capture_probability=1.0,
        request=ASKED,
        choices=(Choice("Hello", "stop"),),
        usage={"prompt_tokens": 31, "total_tokens": 35, "completion_tokens": 4},
    )


def test_a_name_that_no_index_has_room_for_is_none() -> None:
    answer = reply(said("Hello")) | {"id": "c" * 2_800, "model": "m" * 513}
    assert (understood(raw(answer=answer)).upstream_id, understood(raw(answer=answer)).model) == (None, "m")
    long = understood(raw({**ASKED, "model": "m" * 513}, answer | {"id": "c" * 512}))
    assert (long.upstream_id, long.model) == ("c" * 512, "")


def test_token_ids_that_the_client_asked_for() -> None:
    answer = reply(said("Hello"), token_ids=[61, 2]) | {"prompt_token_ids": [1, 9690]}
    exchange = understood(raw(answer=answer))
    assert (exchange.prompt_ids, exchange.output_ids) == ((1, 9690), (61, 2))


def test_a_streamed_chat_answer() -> None:
    """The chunks of vLLM 0.32 with return_token_ids and include_usage."""
    first = delta("") | {"prompt_token_ids": [1, 9690], "prompt_text": None}
    usage = {"id": "chatcmpl-9", "choices": [], "usage": {"prompt_tokens": 31, "completion_tokens": 3}}
    body = stream(first, delta("Hi", token_ids=[5]), delta(" you", "length", token_ids=[6, 7]), usage)
    exchange = understood(raw(answer=b": keep-alive\n\n" + body, headers=SSE))
    assert exchange.streamed
    assert exchange.output_text == "Hi you"
    assert exchange.finish_reason == "length"
    assert (exchange.prompt_ids, exchange.output_ids) == ((1, 9690), (5, 6, 7))
    assert (exchange.prompt_tokens, exchange.output_tokens) == (31, 3)


def test_ids_for_a_part_of_the_text_are_none() -> None:
    exchange = understood(raw(answer=stream(delta("a", token_ids=[5]), delta("b", "stop")), headers=SSE))
    assert exchange.output_ids is None


def test_what_follows_done_is_not_read() -> None:
    body = stream(delta("a", "stop")) + b"data: not JSON\n\n"
    assert understood(raw(answer=body, headers=SSE)).output_text == "a"


def test_a_stream_without_done_but_with_a_finish_reason_is_whole() -> None:
    assert understood(raw(answer=stream(delta("a", "stop"), done=False), headers=SSE)).output_text == "a"


def completion(text: str = " there", **choice: Any) -> dict[str, Any]:
    one = {"index": 0, "text": text, "finish_reason": "length"} | choice
    return {"id": "cmpl-1", "model": "m", "choices": [one]}


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_completions_with_text(prompt: Any) -> None:
    answer = completion(token_ids=[3], prompt_token_ids=[1, 2])
    exchange = understood(raw({"prompt": prompt}, answer, path=COMPLETION))
    assert (exchange.kind, exchange.messages) == ("completion", (Message("prompt", "Once"),))
    assert (exchange.prompt_ids, exchange.output_ids) == ((1, 2), (3,))


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2, 3]]])
def test_completions_with_token_ids(prompt: Any) -> None:
    exchange = understood(raw({"prompt": prompt}, completion(), path=COMPLETION))
    assert exchange.prompt_ids == (1, 2, 3)
    assert exchange.messages == (Message("prompt", ""),)


def test_streamed_completions() -> None:
    chunks = [
        completion(" th", finish_reason=None, token_ids=[5], prompt_token_ids=[1]),
        completion("ere", token_ids=[6], prompt_token_ids=None),
    ]
    exchange = understood(raw({"prompt": "a"}, stream(*chunks), path=COMPLETION, headers=SSE))
    assert (exchange.output_text, exchange.prompt_ids, exchange.output_ids) == (" there", (1,), (5, 6))


def test_messages_of_every_kind() -> None:
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"role": "user", "content": ["c", {"type": "text", "text": "d"}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "t1", "function": {"name": "search"}}]},
        {"role": "tool", "content": "found", "tool_call_id": "t1"},
        {"role": "assistant", "foo": 1},
    ]
    exchange = understood(raw({"messages": messages}, reply(said("ok"))))
    assert exchange.messages == (
        Message("system", "a", part=1),
        Message("system", "b", part=2),
        Message("user", "c", "ann", part=1),
        Message("user", "d", "ann", part=2),
        Message("assistant", ""),
        Message("assistant", '{"name": "search", "arguments": {}}', "search", "tool_call"),
        Message("tool", "found", "search"),
        Message("assistant", ""),
    )


GZIP, DEFLATE = ((b"content-encoding", b"gzip"),), ((b"content-encoding", b"deflate"),)
PLAIN = json.dumps(reply(said("Hello"))).encode()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(PLAIN), GZIP),
        (gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:]), ((b"content-encoding", b"x-gzip, identity"),)),
        (zlib.compress(PLAIN), DEFLATE),
        (zlib.compress(PLAIN)[2:-4], DEFLATE),  # without zlib's head and sum
        (zlib.compress(gzip.compress(PLAIN)), ((b"content-encoding", b"gzip, deflate"),)),
    ],
)
def test_packed_answers(body: bytes, headers: Any) -> None:
    assert understood(raw(answer=body, headers=headers)).output_text == "Hello"


def test_packed_requests() -> None:
    packed = raw(gzip.compress(json.dumps(ASKED).encode()), reply(said("Hello")), sent_headers=GZIP)
    assert understood(packed).messages == (Message("user", "Hi"),)


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]} | more


HELLO = reply(said("Hello"))
CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SKIPPED: list[tuple[str, RawExchange]] = [
    ("upstream_error", raw(answer=b"", status=404)),
    ("upstream_error", raw(answer={"error": {"message": "no"}})),
    ("upstream_error", raw(answer={"object": "error", "message": "no"})),
    ("error_in_stream", raw(answer=stream(delta("a"), {"error": {"code": 500}}), headers=SSE)),
    ("not_json", raw(b"{bad", HELLO)),
    ("not_json", raw(b"\xff\xfe", HELLO)),
    ("not_json", raw(b"", HELLO)),
    ("not_json", raw(b'{"messages": [], "temperature": NaN}', HELLO)),
    ("not_json", raw(b'{"messages": [], "temperature": 1e999}', HELLO)),
    ("not_json", raw(b'{"messages": ' + b"[" * 100_000, HELLO)),
    ("not_json", raw(b'{"seed": ' + b"9" * 10_000 + b"}", HELLO)),
    ("not_json", raw(answer=b"<html>")),
    ("not_json", raw(answer=b"data: {bad\n\n", headers=SSE)),
    ("unknown_shape", raw([], HELLO)),
    ("unknown_shape", raw({"messages": "Hi"}, HELLO)),
    ("unknown_shape", raw({"messages": ["Hi"]}, HELLO)),
    ("unknown_shape", raw(user({"a": 1}), HELLO)),
    ("unknown_shape", raw(answer={"choices": "x"})),
    ("unknown_shape", raw({"prompt": [1, True]}, completion(), path=COMPLETION)),
    ("unknown_shape", raw(answer=HELLO, path="/v1/other")),
    ("unknown_shape", raw(answer=reply(said(None) | {"tool_calls": [{"function": 1}]}))),
    ("unknown_shape", raw(answer=stream(delta("a", index=-1)), headers=SSE)),
    ("bad_text", raw(rb'{"messages": [{"role": "user", "content": "\ud800"}]}', HELLO)),
    ("bad_text", raw(answer=json.dumps(reply(said("\udc00"))).encode())),
    ("empty_prompt", raw({"messages": []}, HELLO)),
    ("empty_prompt", raw(user(""), HELLO)),
    ("empty_prompt", raw({"prompt": ""}, completion(), path=COMPLETION)),
    ("empty_prompt", raw({"prompt": [[]]}, completion(), path=COMPLETION)),
    ("empty_prompt", raw({}, completion(), path=COMPLETION)),
    ("several_prompts", raw({"prompt": ["a", "b"]}, completion(), path=COMPLETION)),
    ("several_prompts", raw({"prompt": [[1], [2]]}, completion(), path=COMPLETION)),
    ("has_images", raw(user([{"type": "image_url", "image_url": {"url": "x"}}]), HELLO)),
    ("has_audio", raw(user([{"type": "input_audio", "input_audio": {}}]), HELLO)),
    ("unsupported_content", raw({"prompt_embeds": "AAAA"}, completion(), path=COMPLETION)),
    ("has_audio", raw(answer=reply(said(None) | {"audio": {"data": "x"}}))),
    ("echoed_prompt", raw({"prompt": "a", "echo": True}, completion(), path=COMPLETION)),
    ("unfinished_answer", raw(answer=reply(said("a"), finish_reason=None))),
    ("unfinished_answer", raw(answer=reply(said("a"), finish_reason="abort"))),
    ("unfinished_answer", raw(answer=stream(delta("a")), headers=SSE)),
    ("unfinished_answer", raw(answer=b"", headers=SSE)),
    ("no_output", raw(answer=reply(said("")))),
    ("no_output", raw(answer=reply(said(None)))),
    ("no_output", raw(answer=stream(delta("", "stop")), headers=SSE)),
    ("unsupported_encoding", raw(answer=b"x", headers=((b"content-encoding", b"br"),))),
    ("unsupported_encoding", raw(answer=b"x", headers=GZIP)),
    ("unsupported_encoding", raw(answer=gzip.compress(PLAIN)[:-9], headers=GZIP)),
    ("too_large_answer", raw(answer=gzip.compress(bytes(33 << 20)), headers=GZIP)),
    ("too_large_request", raw(gzip.compress(bytes(33 << 20)), HELLO, sent_headers=GZIP)),
]


@pytest.mark.parametrize(("reason", "exchange"), SKIPPED, ids=[f"{i}-{r}" for i, (r, _) in enumerate(SKIPPED)])
def test_skipped_with_a_reason(reason: str, exchange: RawExchange) -> None:
    assert parse(exchange) == Skipped("id-1", reason)
    assert reason in SKIP_REASONS


TOOL = Choice("", "tool_calls", tool_calls=(ToolCall("f", "{}", "t1"),))
THOUGHT = Choice("a", "stop", reasoning="Hm.")
TWO = (Choice("a", "stop"), Choice("b", "length"))
HALF_CALL = {"index": 0, "function": {"arguments": '{"q": '}}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}


@pytest.mark.parametrize(
    ("exchange", "choices", "obstacle"),
    [
        (raw(answer=reply(said(None) | {"tool_calls": [CALL]}, finish_reason="tool_calls")), (TOOL,), "tool_calls"),
        (raw(answer=stream(delta(delta={"tool_calls": [CALL]}), delta("", "tool_calls")), headers=SSE), (TOOL,),
         "tool_calls"),
        (raw(answer=stream(
            delta(delta={"tool_calls": [{"index": 0, "id": "t", "function": {"name": "g", "arguments": ""}}]}),
            delta(delta={"tool_calls": [HALF_CALL]}),
            delta(delta={"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
            delta("", "tool_calls")), headers=SSE),
         (Choice("", "tool_calls", tool_calls=(ToolCall("g", '{"q": 1}', "t"),)),), "tool_calls"),
        (raw(answer=reply(said("a") | {"reasoning": "Hm."})), (THOUGHT,), "reasoning_output"),
        (raw(answer=stream(delta(delta={"reasoning_content": "Hm."}), delta("a", "stop")), headers=SSE), (THOUGHT,),
         "reasoning_output"),
        (raw(answer={"choices": [{"index": 1, "message": said("b"), "finish_reason": "length"},
                                 {"index": 0, "message": said("a"), "finish_reason": "stop"}]}), TWO,
         "several_choices"),
        (raw(answer=stream(delta("b", "length", index=1), delta("a", "stop")), headers=SSE), TWO, "several_choices"),
        (raw(answer=reply(said("a"), logprobs=LOGPROBS)), (Choice("a", "stop", logprobs=(("a", -0.5),)),), None),
        (raw({"prompt": "x"}, completion(logprobs={"tokens": [" there"], "token_logprobs": [-1.0]}), path=COMPLETION),
         (Choice(" there", "length", logprobs=((" there", -1.0),)),), None),
    ],
)  # fmt: skip
def test_all_that_an_answer_says_is_kept(
    exchange: RawExchange, choices: tuple[Choice, ...], obstacle: str | None
) -> None:
    found = understood(exchange)
    assert (found.choices, found.obstacle) == (choices, obstacle)
    assert (found.output_text, found.finish_reason) == (choices[0].text, choices[0].finish_reason)


def test_no_tool_calls_and_no_reasoning_may_be_written_out() -> None:
    message = said("a") | {"tool_calls": [], "reasoning": "", "audio": None}
    assert understood(raw(answer=reply(message), path=CHAT)).output_text == "a"
