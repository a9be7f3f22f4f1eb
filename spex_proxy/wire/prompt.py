"""The request's side of an exchange: its messages, or its one prompt. Raises Skip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spex_proxy.facts.exchange import Message
from spex_proxy.wire.tap import Skip
from spex_proxy.wire.tools import Leaf, call_message, called_functions, defined_functions, definition_message

_TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
"""Type of a content part -> the field that holds its text. Any other type is not text."""

_NO_TEXTS = {"image_url": "has_images", "input_image": "has_images", "image": "has_images"} | {
    "input_audio": "has_audio",
    "audio_url": "has_audio",
}
"""Type of a content part -> why the exchange is not kept."""

_MAX_ID = 2**31

Text = tuple[Message, Leaf | None]
"""A text of the prompt, and where the request holds it; None if it holds it in pieces, or it is empty."""


def refuse_unexplainable(request: Mapping[str, Any]) -> None:
    """What a request alone shows that we can't explain."""
    if request.get("echo"):
        raise Skip("echoed_prompt")
    if request.get("prompt_embeds"):
        raise Skip("unsupported_content")


def read_messages(request: Mapping[str, Any]) -> tuple[Message, ...]:
    """The texts of a chat request: tool definitions, then for each message its text, or its text parts,
    and its tool calls. A message without text has one empty one.
    """
    raw = request.get("messages")
    if not isinstance(raw, list):
        raise Skip("unknown_shape")
    names = _tool_names(raw)
    try:
        texts = tuple(text for item in raw for text in _texts(item, names))
        tools = tuple(definition_message(function) for function in defined_functions(request))
    except RecursionError:
        raise Skip("not_json") from None
    return with_text((*tools, *texts))


def with_text(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same. Raises Skip if there is no text but that of tool definitions."""
    if not any(message.text for message in messages if message.kind != "tool_definition"):
        raise Skip("empty_prompt")
    return messages


def _texts(item: Any, names: Mapping[str, str]) -> Iterator[Message]:
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        raise Skip("unknown_shape")
    name = item.get("name")
    if not isinstance(name, str):
        call_id = item.get("tool_call_id")
        name = names.get(call_id) if isinstance(call_id, str) else None
    slots = text_slots(item)
    for number, (holder, key) in enumerate(slots, 1):
        yield Message(item["role"], holder[key], name, part=number if len(slots) > 1 else None)
    if not slots:
        yield Message(item["role"], "", name)
    for function in called_functions(item):
        yield call_message(item["role"], function)


def text_slots(item: dict[str, Any]) -> list[Leaf]:
    """Where a message holds its texts. Empty ones are left out: vLLM drops them too."""
    content = item.get("content")
    if content is None:
        return []
    if isinstance(content, str):
        slots: list[Leaf] = [(item, "content")]
    elif isinstance(content, list):
        slots = [_part_slot(content, number) for number in range(len(content))]
    else:
        raise Skip("unknown_shape")
    return [(holder, key) for holder, key in slots if holder[key]]


def _part_slot(content: list[Any], number: int) -> Leaf:
    part = content[number]
    if isinstance(part, str):
        return content, number
    if not isinstance(part, dict):
        raise Skip("unknown_shape")
    kind = part.get("type", "text")
    field = _TEXT_PARTS.get(kind) if isinstance(kind, str) else None
    if field is None:
        raise Skip(_NO_TEXTS.get(kind, "unsupported_content") if isinstance(kind, str) else "unsupported_content")
    if not isinstance(part.get(field), str):
        raise Skip("unknown_shape")
    return part, field


def _tool_names(raw: list[Any]) -> dict[str, str]:
    """Tool call id -> function name, so that a tool's answer can say which tool it was."""
    names: dict[str, str] = {}
    for item in raw:
        calls = item.get("tool_calls") if isinstance(item, dict) else None
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function") if isinstance(call, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            if isinstance(name, str) and isinstance(call.get("id"), str):
                names[call["id"]] = name
    return names


def read_prompt(request: Mapping[str, Any]) -> tuple[tuple[Message, ...], tuple[int, ...] | None]:
    """The one prompt of a completions request: its text, or the token ids that it was given as."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)):
        if len(prompt) > 1:
            raise Skip("several_prompts")
        prompt = prompt[0]
    if prompt is None or prompt in ("", []):
        raise Skip("empty_prompt")
    if isinstance(prompt, str):
        return (Message("prompt", prompt),), None
    ids = token_ids(prompt)
    if ids is None:
        raise Skip("unknown_shape")
    return (Message("prompt", ""),), ids


def token_ids(value: Any) -> tuple[int, ...] | None:
    """A list of token ids, or None if it is anything else."""
    if not isinstance(value, list):
        return None
    if not all(type(i) is int and 0 <= i < _MAX_ID for i in value):  # `type`, because True is an int too
        return None
    return tuple(value)
