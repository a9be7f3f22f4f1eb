"""A client's request without some stretches of its texts: what a re-test sends."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange, ExchangeKind, Message, TextRange
from spex_proxy.wire.chat import native_texts
from spex_proxy.wire.prompt import text_slots
from spex_proxy.wire.tap import Skip
from spex_proxy.wire.tools import Leaf, called_functions, defined_functions

_DROPPED = (
    "stream", "stream_options", "n", "best_of", "use_beam_search", "return_token_ids", "priority", "cache_salt",
    "request_id", "store", "background",
)  # fmt: skip
"""How the answer was delivered, or how often; none of it changes what the model says."""
_KNOWS_PRIORITY: frozenset[ExchangeKind] = frozenset({"chat", "completion", "response"})
"""Kinds whose body may hold vLLM's `priority` and `cache_salt`."""


def repeatable(exchange: Exchange, removed: Sequence[TextRange], priority: int, cache_salt: str) -> dict[str, Any]:
    """The client's request at temperature 0, in one piece, without the `removed` stretches.

    Its parameters stay. `priority` above 0 is less urgent than production; the salt keeps our blocks of the
    prefix cache apart from everybody else's. Raises CannotExplain for what can't be taken out.
    """
    body = without(exchange, removed)
    for name in _DROPPED:
        body.pop(name, None)
    body["temperature"] = 0
    if exchange.kind in _KNOWS_PRIORITY:
        body |= {"priority": priority, "cache_salt": cache_salt}
    return body


def without(exchange: Exchange, removed: Sequence[TextRange]) -> dict[str, Any]:
    """The request with the text of the given ranges taken out of it, and nothing else changed."""
    request = copy.deepcopy(dict(exchange.request))
    by_message: dict[int, list[TextRange]] = {}
    for stretch in removed:
        by_message.setdefault(stretch.message, []).append(stretch)
    if not by_message:
        return request
    leaves = _leaves(exchange.kind, request)
    if len(leaves) != len(exchange.messages):
        raise CannotExplain("the stored request does not fit the texts that were read from it")
    for number, stretches in by_message.items():
        leaf, message = leaves[number], exchange.messages[number]
        if leaf is None or leaf[0][leaf[1]] != message.text:
            raise CannotExplain(
                f"a segment of {message.origin} is not one text of the request, so it can't be left out of it"
            )
        holder, key = leaf
        holder[key] = _cut(message.text, stretches)
    return request


def messages_without(exchange: Exchange, removed: Sequence[TextRange]) -> tuple[Message, ...]:
    """The texts of the prompt without the given ranges."""
    cuts = {number: [one for one in removed if one.message == number] for number in {one.message for one in removed}}
    return tuple(
        replace(message, text=_cut(message.text, cuts[number])) if number in cuts else message
        for number, message in enumerate(exchange.messages)
    )


def _cut(text: str, stretches: Sequence[TextRange]) -> str:
    """From the end on, so that what is before keeps its place."""
    for stretch in sorted(stretches, key=lambda stretch: -stretch.start):
        text = text[: stretch.start] + text[stretch.end :]
    return text


def _leaves(kind: ExchangeKind, request: dict[str, Any]) -> list[Leaf | None]:
    """Where the request holds each message of the exchange; None for those that it holds in pieces."""
    if kind == "completion":
        prompt = request.get("prompt")
        return [(prompt, 0) if isinstance(prompt, list) else (request, "prompt")]
    try:
        if kind != "chat":
            return [leaf for _, leaf in native_texts(kind, request)]
        return [*(None for _ in defined_functions(request)), *_chat_leaves(request.get("messages", []))]
    except Skip as skip:
        raise CannotExplain(f"the stored request can't be read any more: {skip.reason}") from skip


def _chat_leaves(items: Sequence[dict[str, Any]]) -> list[Leaf | None]:
    leaves: list[Leaf | None] = []
    for item in items:
        leaves += text_slots(item) or [None]  # a message without text counts as one
        leaves += [None for _ in called_functions(item)]
    return leaves
