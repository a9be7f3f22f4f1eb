"""Tool definitions and tool calls: as messages of an exchange, and where a chat template wrote them.

Each template writes them in its own way: as JSON on one line or indented, with other
keys around, as XML, as TypeScript. So nothing is assumed about it: a JSON object of the
prompt is a tool's if it says the same as what the client sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spex_proxy.facts.exchange import Message

_DEFINED_BY = ("name", "description", "parameters")
_NAME_IS_NEAR = 80
"""Characters before a call's bare arguments among which the tool's name must stand."""
_SCANS = 30
"""How many times over the prompt may be read in search of objects: enough for any nesting that people write."""

_OBJECT = re.compile(r'\{\s*"')
_DECODER = json.JSONDecoder(strict=False)  # some templates write line breaks into strings as they are

Leaf = tuple[Any, Any]
"""A string inside JSON: the list or dict that holds it, and its index or key there."""


# ----------------------------------------------------------------------------------- in the request


def defined_functions(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The `function` objects of a request's tools, in order."""
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            yield function


def called_functions(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The `function` objects of the tool calls that an assistant's message holds."""
    calls = item.get("tool_calls") if item.get("role") == "assistant" else None
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            yield function


def definition_message(function: Mapping[str, Any]) -> Message:
    """A tool definition as a message. Its text is the JSON that most templates write."""
    said = {key: function[key] for key in _DEFINED_BY if function.get(key) is not None}
    text = _dump({"type": "function", "function": said})
    return Message("tool_definition", text, function["name"], "tool_definition")


def call_message(role: str, function: Mapping[str, Any]) -> Message:
    """An earlier tool call of the assistant as a message."""
    text = _dump({"name": function["name"], "arguments": arguments(function)})
    return Message(role, text, function["name"], "tool_call")


def arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments, read as vLLM reads them: what is no JSON object counts as an empty one."""
    given = function.get("arguments")
    try:
        value = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def described(function: Mapping[str, Any]) -> Iterator[Leaf]:
    """The descriptions in a definition: texts on which no template's logic depends."""
    for holder, key in strings({key: function.get(key) for key in _DEFINED_BY[2:]}):
        if key == "description":
            yield holder, key
    if isinstance(function.get("description"), str) and function["description"]:
        yield function, "description"


def strings(value: Any) -> Iterator[Leaf]:
    """All strings inside JSON that are not empty, keys excepted, in order."""
    waiting = [value]
    while waiting:  # not by recursion: how deep it is nested is the client's choice
        holder = waiting.pop()
        inside = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
        for key, item in inside:
            if isinstance(item, str) and item:
                yield holder, key
        waiting.extend(item for _, item in reversed(inside) if isinstance(item, dict | list))


def _dump(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, escaped twice: JSON inside a JSON string
        return json.dumps(value)
    return text


# ------------------------------------------------------------------------------------ in the prompt


def find_objects(
    prompt: str, taken: Sequence[tuple[int, int]], messages: Sequence[Message]
) -> dict[int, tuple[int, int]]:
    """Where definitions and calls stand as JSON objects, outside of what is `taken` (disjoint, in order).

    Message number -> characters [start, end) of the prompt. Equal ones are told apart by their
    order, and only if as many are found as were sent.
    """
    wanted = _Wanted(messages)
    found: dict[str, list[tuple[int, int]]] = {}
    patience = _SCANS * len(prompt)
    for start, end in _gaps(taken, len(prompt)) if wanted.numbers else ():
        position = start
        while patience > 0 and (opening := _OBJECT.search(prompt, position, end)):
            first = opening.start()
            value, last = _decode(prompt, first, end)
            patience -= last - first
            key = wanted.key(value, prompt[max(start, first - _NAME_IS_NEAR) : first])
            if key:
                found.setdefault(key, []).append((first, last))
            position = last if key else first + 1
    return {
        number: place
        for key, places in found.items()
        if len(places) == len(wanted.numbers[key])
        for number, place in zip(wanted.numbers[key], places, strict=True)
    }


class _Wanted:
    """What is looked for: the numbers of the messages that say the same, by what they say."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.numbers: dict[str, list[int]] = {}
        self._callers: dict[str, list[tuple[str, str]]] = {}
        for number, message in enumerate(messages):
            if message.kind == "text":
                continue
            value = json.loads(message.text)
            key = _says(value)[message.kind]
            self.numbers.setdefault(key, []).append(number)
            if message.kind == "tool_call" and value["arguments"]:
                self._callers.setdefault(_canonical(value["arguments"]), []).append((value["name"], key))

    def key(self, value: Any, before: str) -> str | None:
        """Whose object it is; a call may be its bare arguments, with the tool's name shortly before them."""
        if not value:
            return None
        known = (key for key in _says(value).values() if key in self.numbers)
        bare = (key for name, key in self._callers.get(_canonical(value), ()) if name in before)
        return next(known, None) or next(bare, None)


def _says(value: Mapping[str, Any]) -> dict[str, str]:
    """What an object says if it is read as a definition, and as a call."""
    inner = value.get("function")
    if not isinstance(inner, dict):
        inner = value
    readings: dict[str, str] = {}
    if not isinstance(inner.get("name"), str):
        return readings
    if "arguments" not in inner:
        said = {key: inner[key] for key in _DEFINED_BY if inner.get(key) is not None}
        readings["tool_definition"] = "definition " + _canonical(said)
    for key in ("arguments", "parameters"):
        if key in inner:
            given = arguments({"arguments": inner[key]})
            readings.setdefault("tool_call", "call " + _canonical([inner["name"], given]))
    return readings


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _decode(prompt: str, start: int, end: int) -> tuple[dict[str, Any] | None, int]:
    """The object that begins at `start`, and how far was read; None if there is none before `end`."""
    try:
        value, last = _DECODER.raw_decode(prompt, start)
    except json.JSONDecodeError as error:
        return None, max(error.pos, start + 1)
    except (ValueError, RecursionError):  # an integer of thousands of digits, deep nesting
        return None, start + 10_000
    return (value, last) if last <= end else (None, last)


def _gaps(taken: Sequence[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    reached = 0
    for start, end in (*taken, (length, length)):
        if start > reached:
            yield reached, start
        reached = max(reached, end)
