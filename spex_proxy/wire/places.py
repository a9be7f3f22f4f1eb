"""Where each text of an exchange stands in the rendered prompt.

The prompt is rendered once more with a marker in place of each text: what surrounds
the markers is the template, whatever the template is. Both renderings must agree in
every character of it, so a place is either exact or there is none.

Of tool definitions and calls, markers stand in their strings. They are looked for as
JSON objects first (wire.tools); otherwise they reach from their first string to their last.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import ExchangeKind, Message, MessagePlace, Spelling
from spex_proxy.wire.chat import native_texts
from spex_proxy.wire.prompt import text_slots
from spex_proxy.wire.tools import (
    Leaf,
    arguments,
    called_functions,
    defined_functions,
    described,
    find_objects,
    strings,
)

_ESCAPES: tuple[Spelling, ...] = ("json", "json_ascii", "json_html")
_MARKER = re.compile(r"spex-marker-(\d{4,})(?:-(\d{4,}))?-qjxz", re.IGNORECASE)


def marker(number: int, leaf: int | None = None) -> str:
    """A text that no template treats specially and that no other message contains.

    It stands for message `number`, or for one string inside a tool definition or call.
    """
    return f"spex-marker-{number:04d}-qjxz" if leaf is None else f"spex-marker-{number:04d}-{leaf:04d}-qjxz"


def marked_request(request: Mapping[str, Any], *, with_tools: bool = True) -> dict[str, Any]:
    """The same chat request with a marker for each text; numbers are those of wire.prompt.read_messages."""
    marked = copy.deepcopy(dict(request))
    number = 0
    for function in defined_functions(marked):
        if with_tools:
            _mark(described(function), number)
        number += 1
    for item in marked.get("messages", []):
        slots = text_slots(item)
        for holder, key in slots:
            holder[key] = marker(number)
            number += 1
        number += not slots
        for function in called_functions(item):
            if with_tools:
                given = arguments(function)
                _mark(strings(given), number)
                function["arguments"] = json.dumps(given)
            number += 1
    return marked


def marked_native(kind: ExchangeKind, request: Mapping[str, Any]) -> dict[str, Any]:
    """The same for `/v1/responses` and `/v1/messages`. No markers stand in tools: those are found as objects."""
    marked = copy.deepcopy(dict(request))
    for number, (_, leaf) in enumerate(native_texts(kind, marked)):
        if leaf is not None:
            holder, key = leaf
            holder[key] = marker(number)
    return marked


def _mark(leaves: Iterator[Leaf], number: int) -> None:
    for leaf, (holder, key) in enumerate(list(leaves)):
        holder[key] = marker(number, leaf)


def locate(text: str, marked_text: str, messages: Sequence[Message]) -> tuple[MessagePlace | None, ...]:
    """Where each message stands in the rendered prompt `text`; None where it can't be said exactly.

    `marked_text` is the same prompt rendered with markers. A template may move texts, trim white
    space, escape them, leave them out and repeat them; if it does more than that to a text,
    CannotExplain names the message.
    """
    marks = [
        _Mark(int(found[1]), int(found[2]) if found[2] else None, *found.span())
        for found in _MARKER.finditer(marked_text)
    ]
    spots = _follow(text, marked_text, marks, messages)
    taken = [(spot.start, spot.end) for mark, spot in zip(marks, spots, strict=True) if mark.leaf is None]
    leaves = [spot for mark, spot in zip(marks, spots, strict=True) if mark.leaf is not None]
    objects = {
        number: (start, end)
        for number, (start, end) in find_objects(text, taken, messages).items()
        if not any(leaf.start <= start and end <= leaf.end for leaf in leaves)  # one tool's text quotes another
    }
    at: dict[int, list[int]] = {}
    for order, mark in enumerate(marks):
        at.setdefault(mark.message, []).append(order)
    places: list[MessagePlace | None] = []
    for number, message in enumerate(messages):
        orders = at.get(number, [])
        if message.kind == "text":
            places.append(spots[orders[0]] if len(orders) == 1 else None)
        else:
            stretch = objects.get(number) or _from_first_to_last(orders, marks, spots)
            places.append(_object_place(text, stretch, message) if stretch else None)
    return tuple(place if place and not _is_shared(place, places) else None for place in places)


class _Mark(NamedTuple):
    """A marker in the marked prompt: characters [start, end)."""

    message: int
    leaf: int | None
    start: int
    end: int


class _Way(NamedTuple):
    """One way to read the prompt so far: its last place, and the way up to there."""

    place: MessagePlace
    before: _Way | None


def _follow(text: str, marked_text: str, marks: Sequence[_Mark], messages: Sequence[Message]) -> list[MessagePlace]:
    """What stands in `text` for each mark."""
    # Trimmed or not can't always be told from one message ("a\n" before an empty line?), only from
    # whether the rest fits: so every way that fits so far is kept, by the position where it ends.
    originals = _originals(messages)
    ways: dict[int, _Way | None] = {0: None}
    template = 0  # how much of marked_text is accounted for
    culprit = marks[0].message if marks else len(messages) - 1
    for mark in marks:
        before = marked_text[template : mark.start]
        template = mark.end
        framed = {p + len(before): way for p, way in ways.items() if text.startswith(before, p)}
        culprit = mark.message if framed else culprit
        original = originals.get((mark.message, mark.leaf))
        ways = {}
        for position, way in framed.items() if original is not None else ():
            for place in _fits(text, position, original or ""):
                ways.setdefault(place.end, _Way(place, way))
        if not ways:
            raise _rewritten(culprit, messages)
    for position, last in ways.items():
        if text[position:] == marked_text[template:]:
            return _walked(last)
    raise _rewritten(culprit, messages)


def _originals(messages: Sequence[Message]) -> dict[tuple[int, int | None], str]:
    """(message, leaf) of a mark -> the text that it stands for."""
    originals: dict[tuple[int, int | None], str] = {}
    for number, message in enumerate(messages):
        if message.kind == "text":
            originals[number, None] = message.text
            continue
        value = json.loads(message.text)
        is_call = message.kind == "tool_call"
        leaves = strings(value["arguments"]) if is_call else described(value["function"])
        originals.update({(number, leaf): holder[key] for leaf, (holder, key) in enumerate(leaves)})
    return originals


def _walked(last: _Way | None) -> list[MessagePlace]:
    places = []
    while last is not None:
        places.append(last.place)
        last = last.before
    return places[::-1]


def _from_first_to_last(
    orders: Sequence[int], marks: Sequence[_Mark], spots: Sequence[MessagePlace]
) -> tuple[int, int] | None:
    """From the first string of a tool to its last, if nothing of another text is between."""
    if not orders or len({marks[order].leaf for order in orders}) < len(orders):
        return None
    is_one_go = orders[-1] - orders[0] == len(orders) - 1
    return (spots[orders[0]].start, spots[orders[-1]].end) if is_one_go else None


def _is_shared(place: MessagePlace, places: Sequence[MessagePlace | None]) -> bool:
    """Two were found in one stretch of the prompt, so one of them at least is not what it seems."""
    return place.spelling == "whole" and any(
        other and other is not place and other.start < place.end and place.start < other.end for other in places
    )


def _object_place(text: str, stretch: tuple[int, int], message: Message) -> MessagePlace:
    start, end = stretch
    return MessagePlace(start, end, spelling="plain" if text[start:end] == message.text else "whole")


def escaped(text: str, spelling: Spelling) -> str:
    """The text as it stands inside the quotes of a JSON string."""
    written = json.dumps(text, ensure_ascii=spelling != "json")[1:-1]
    if spelling == "json_html":  # Jinja's own filter
        for character in "<>&'":
            written = written.replace(character, f"\\u{ord(character):04x}")
    return written


def _fits(text: str, position: int, content: str) -> Iterator[MessagePlace]:
    """The ways in which a message's text, trimmed and escaped or not, stands at `position`; as it is first."""
    left = len(content) - len(content.lstrip())
    lines = len(content) - len(content.lstrip("\n"))
    trims = {
        content: 0,
        content.strip(): left,
        content.rstrip(): 0,
        content.lstrip(): left,
        content.strip("\n"): lines,
        content.rstrip("\n"): 0,
        content.lstrip("\n"): lines,
    }
    for candidate, trimmed in trims.items():
        if text.startswith(candidate, position):
            yield MessagePlace(position, position + len(candidate), trimmed)
    for spelling in _ESCAPES:
        for candidate, trimmed in trims.items():
            written = escaped(candidate, spelling)
            if written != candidate and text.startswith(written, position):
                yield MessagePlace(position, position + len(written), trimmed, spelling)


def _rewritten(number: int, messages: Sequence[Message]) -> CannotExplain:
    definitions = sum(message.kind == "tool_definition" for message in messages)
    return CannotExplain(
        f"the chat template changes the text of message {max(number - definitions, 0) + 1}, "
        "so its segments can't be found in the prompt that the model saw"
    )
