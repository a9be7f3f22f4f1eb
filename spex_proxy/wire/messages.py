"""`/v1/messages`, Anthropic's shape, as vLLM speaks it. Raises Skip."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spex_proxy.facts.exchange import Choice, Message, ToolCall
from spex_proxy.wire.answer import Answer, as_name, checked, count, events_of, has, text_in
from spex_proxy.wire.body import read_object
from spex_proxy.wire.prompt import Text
from spex_proxy.wire.tap import Skip
from spex_proxy.wire.tools import call_message, definition_message

_TEXTS = {"text": "text", "thinking": "thinking"}
"""Block -> the field that holds its text."""
_SILENT = ("redacted_thinking", "tool_reference", "tool_addition", "tool_removal")
"""Blocks that the model sees nothing of, or nothing that is a text."""
_OURS_TO_DROP = "x-anthropic-billing-header"
"""vLLM leaves out system texts that begin so."""


def read_texts(request: Mapping[str, Any]) -> list[Text]:
    """Tool definitions, the system prompt, then each message's blocks, in order."""
    texts: list[Text] = [(_definition(tool), None) for tool in _list(request.get("tools")) if _is_defined(tool)]
    system = request.get("system")
    if isinstance(system, str) and system:
        texts.append((Message("system", system), (request, "system")))
    elif isinstance(system, list):
        texts += _blocks("system", system, {})
    messages = request.get("messages")
    if not isinstance(messages, list):
        raise Skip("unknown_shape")
    names: dict[str, str] = {}
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Skip("unknown_shape")
        content = message.get("content")
        if isinstance(content, str):
            texts.append((Message(message["role"], content), (message, "content") if content else None))
        elif isinstance(content, list):
            texts += _blocks(message["role"], content, names)
        else:
            raise Skip("unknown_shape")
    return [text for text in texts if not (text[0].role == "system" and text[0].text.startswith(_OURS_TO_DROP))]


def _blocks(role: str, content: list[Any], names: dict[str, str]) -> list[Text]:
    spoken = sum(isinstance(block, dict) and block.get("type") in _TEXTS for block in content)
    texts: list[Text] = []
    number = 0
    for block in content:
        if not isinstance(block, dict):
            raise Skip("unknown_shape")
        kind = block.get("type")
        if kind in _TEXTS:
            number += 1
            field = _TEXTS[kind]
            text = text_in(block, field)
            part = number if spoken > 1 else None
            texts.append((Message(role, text, part=part), (block, field) if text else None))
        elif kind == "tool_use":
            names[str(block.get("id"))] = str(block.get("name") or "")
            arguments = block.get("input") if isinstance(block.get("input"), dict) else {}
            texts.append((call_message(role, {"name": str(block.get("name") or ""), "arguments": arguments}), None))
        elif kind == "tool_result":
            texts += _results(block, names.get(str(block.get("tool_use_id"))))
        elif kind == "image":
            raise Skip("has_images")
        elif kind not in _SILENT:
            raise Skip("unsupported_content")
    return texts


def _results(block: dict[str, Any], name: str | None) -> list[Text]:
    content = block.get("content")
    if content is None or isinstance(content, str):
        return [(Message("tool", content or "", name), (block, "content") if content else None)]
    texts: list[Text] = []
    for item in _list(content):
        if not isinstance(item, dict):
            raise Skip("unknown_shape")
        if item.get("type") == "image":
            raise Skip("has_images")
        if item.get("type") == "text":
            text = text_in(item, "text")
            texts.append((Message("tool", text, name, part=len(texts) + 1), (item, "text") if text else None))
        elif item.get("type") not in _SILENT:
            raise Skip("unsupported_content")
    return texts


def _is_defined(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("name"), str)


def _definition(tool: Mapping[str, Any]) -> Message:
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": tool.get("input_schema")}
    return definition_message(function)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# ------------------------------------------------------------------------------------------ the answer


def read_answer(body: bytes) -> Answer:
    """A plain JSON answer."""
    reply = read_object(body)
    if has(reply, "error") or reply.get("type") == "error":
        raise Skip("upstream_error")
    blocks = reply.get("content")
    if not isinstance(blocks, list):
        raise Skip("unknown_shape")
    usage = reply.get("usage")
    return _answer(reply, dict(enumerate(blocks)), {}, usage if isinstance(usage, dict) else {})


def read_stream(body: bytes) -> Answer:
    """A whole event stream: a message's head, its blocks piece by piece, its end."""
    head: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    blocks: dict[int, Any] = {}
    written: dict[int, list[str]] = {}
    for event in events_of(body):
        said = read_object(event.data)
        kind = said.get("type")
        if kind == "error" or has(said, "error"):
            raise Skip("error_in_stream")
        if kind == "message_start" and isinstance(said.get("message"), dict):
            head = dict(said["message"])
            usage |= head["usage"] if isinstance(head.get("usage"), dict) else {}
        elif kind == "content_block_start":
            blocks[_index(said)] = said.get("content_block")
        elif kind == "content_block_delta":
            written.setdefault(_index(said), []).append(_piece(said.get("delta")))
        elif kind == "message_delta":
            delta = said.get("delta")
            head |= delta if isinstance(delta, dict) else {}
            usage |= said["usage"] if isinstance(said.get("usage"), dict) else {}
    return _answer(head, blocks, {index: "".join(pieces) for index, pieces in written.items()}, usage)


def _index(said: Mapping[str, Any]) -> int:
    index = said.get("index")
    if type(index) is not int:
        raise Skip("unknown_shape")
    return index


def _piece(delta: Any) -> str:
    if not isinstance(delta, dict):
        raise Skip("unknown_shape")
    return text_in(delta, "text") or text_in(delta, "thinking") or text_in(delta, "partial_json")


def _answer(
    head: Mapping[str, Any], blocks: Mapping[int, Any], written: Mapping[int, str], usage: Mapping[str, Any]
) -> Answer:
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    for index in sorted({*blocks, *written}):
        block = blocks.get(index)
        if not isinstance(block, dict):
            raise Skip("unknown_shape")
        more = written.get(index, "")
        kind = block.get("type")
        if kind == "text":
            text.append(text_in(block, "text") + more)
        elif kind == "thinking":
            reasoning.append(text_in(block, "thinking") + more)
        elif kind == "redacted_thinking":
            reasoning.append("[redacted]")
        elif kind == "tool_use":
            calls.append(ToolCall(text_in(block, "name"), more or _json(block.get("input")), as_name(block.get("id"))))
        else:
            raise Skip("unsupported_content")
    choice = Choice("".join(text), as_name(head.get("stop_reason")), "".join(reasoning), tuple(calls))
    return checked(
        Answer(
            choices=(choice,),
            upstream_id=as_name(head.get("id")),
            model=as_name(head.get("model")),
            prompt_tokens=_prompt_tokens(usage),
            output_tokens=count(usage.get("output_tokens")),
            usage=usage,
        )
    )


def _prompt_tokens(usage: Mapping[str, Any]) -> int | None:
    """Anthropic counts what came from a cache apart; the prompt is all of it."""
    fresh = count(usage.get("input_tokens"))
    cached = (count(usage.get(f"cache_{what}_input_tokens")) or 0 for what in ("read", "creation"))
    return None if fresh is None else fresh + sum(cached)


def _json(value: Any) -> str:
    return json.dumps(value if isinstance(value, dict) else {}, ensure_ascii=False)
