"""The request's side of an exchange: its messages, or its one prompt. Raises Skip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spex_proxy.facts.exchange import Message
from spex_proxy.wire.tap import Skip

_TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
"""Type of a content part -> the field that holds its text. Any other type is not text."""

_MAX_ID = 2**31


def refuse_unexplainable(request: Mapping[str, Any]) -> None:
    """What a request alone shows that we can't explain."""
    if request.get("echo"):
        raise Skip("echoed_prompt")
    if request.get("prompt_embeds"):
        raise Skip("unsupported_content")
    choices = request.get("n")
    if isinstance(choices, int) and choices > 1:
        raise Skip("several_choices")


def read_messages(request: Mapping[str, Any]) -> tuple[Message, ...]:
    """One Message per message of the request, in order, also where it has no text."""
    raw = request.get("messages")
    if not isinstance(raw, list):
        raise Skip("unknown_shape")
    tools = _tool_names(raw)
    messages = tuple(_message(item, tools) for item in raw)
    if not any(m.text for m in messages):
        raise Skip("empty_prompt")
    return messages


def _message(item: Any, tools: Mapping[str, str]) -> Message:
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        raise Skip("unknown_shape")
    name = item.get("name")
    if not isinstance(name, str):
        call_id = item.get("tool_call_id")
        name = tools.get(call_id) if isinstance(call_id, str) else None
    return Message(item["role"], _text(item.get("content")), name)


def _text(content: Any) -> str:
    """The text of a message. Text parts join with LF, as vLLM joins them for most chat templates."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Skip("unknown_shape")
    return "\n".join(_part_text(part) for part in content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise Skip("unknown_shape")
    kind = part.get("type", "text")
    field = _TEXT_PARTS.get(kind) if isinstance(kind, str) else None
    if field is None:
        raise Skip("unsupported_content")
    text = part.get(field)
    if not isinstance(text, str):
        raise Skip("unknown_shape")
    return text


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
