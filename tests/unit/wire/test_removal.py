"""A request without some of its text, whatever is spoken."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange, Message, TextRange
from spex_proxy.wire.prompt import read_messages
from spex_proxy.wire.removal import repeatable, without
from tests.contract.store.samples import Make

TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {}}}]
CHAT: dict[str, Any] = {
    "model": "tiny", "temperature": 0.7, "stream": True, "stream_options": {"include_usage": True}, "n": 1,
    "tools": TOOLS, "seed": 3,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "One. Two."}, {"type": "text", "text": "Three."}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "Four. Five."},
    ],
}  # fmt: skip


def chat(request: dict[str, Any] = CHAT) -> Exchange:
    return Make().exchange(kind="chat", request=request, messages=read_messages(request))


def test_ranges_leave_and_nothing_else_changes() -> None:
    exchange, before = chat(), json.dumps(CHAT)
    by_text = {message.text: number for number, message in enumerate(exchange.messages)}
    user, tool = by_text["One. Two."], by_text["Four. Five."]
    cut = without(exchange, [TextRange(user, 0, 5), TextRange(tool, 5, 11)])
    assert cut["messages"][1]["content"][0]["text"] == "Two."
    assert cut["messages"][1]["content"][1]["text"] == "Three."
    assert cut["messages"][3]["content"] == "Four."
    assert cut["tools"] == TOOLS
    assert json.dumps(CHAT) == before, "the stored request stays as it is"


def test_the_same_parameters_at_temperature_0_in_one_piece() -> None:
    body = repeatable(chat(), (), 100, "salt")
    assert (body["temperature"], body["seed"], body["priority"], body["cache_salt"]) == (0, 3, 100, "salt")
    assert not {"stream", "stream_options", "n"} & body.keys()
    assert body["messages"] == CHAT["messages"]


def test_a_completion_and_a_message_of_the_other_shapes() -> None:
    prompt = Make().exchange(
        kind="completion", request={"prompt": ["One. Two."]}, messages=(Message("prompt", "One. Two."),)
    )
    assert without(prompt, [TextRange(0, 0, 5)])["prompt"] == ["Two."]
    request = {"model": "tiny", "system": "Be brief.", "messages": [{"role": "user", "content": "One. Two."}]}
    messages = (Message("system", "Be brief."), Message("user", "One. Two."))
    message = Make().exchange(kind="message", request=request, messages=messages)
    body = repeatable(message, [TextRange(1, 5, 9)], 100, "salt")
    assert body["messages"][0]["content"] == "One. "
    assert "priority" not in body, "that route has no field for it"


def test_what_stands_in_pieces_can_not_be_taken_out() -> None:
    exchange = chat()
    definition = next(n for n, message in enumerate(exchange.messages) if message.kind == "tool_definition")
    with pytest.raises(CannotExplain, match="tool_definition"):
        without(exchange, [TextRange(definition, 0, 3)])
    other = replace(exchange, messages=exchange.messages[1:])
    with pytest.raises(CannotExplain, match="does not fit"):
        without(other, [TextRange(0, 0, 3)])


@given(st.text(min_size=1, max_size=40), st.lists(st.integers(0, 40), min_size=2, max_size=6, unique=True))
def test_what_is_left_is_the_text_without_the_ranges(text: str, marks: list[int]) -> None:
    edges = sorted(min(mark, len(text)) for mark in marks)
    stretches = [TextRange(0, a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    request = {"messages": [{"role": "user", "content": text}]}
    exchange = Make().exchange(kind="chat", request=request, messages=(Message("user", text),))
    kept = "".join(c for at, c in enumerate(text) if not any(s.start <= at < s.end for s in stretches))
    assert without(exchange, stretches)["messages"][0]["content"] == kept
