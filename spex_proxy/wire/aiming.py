"""Where an aim lies in an answer: its characters as the client saw them, as the model wrote them, its tokens. Pure.

A server cuts an answer apart: tool calls and reasoning leave its text. Where they stood is found in what the model
really wrote, the text of the output's token ids. What can't be found is never guessed: CannotExplain says why.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from spex_proxy.facts.aim import QUOTE, Aim, read_aim
from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange, Target, TokenizedExchange, ToolCall

_MOST_OBJECTS = 2_000
"""So many opening brackets of an answer are tried as the beginning of a call's arguments."""


class Span(NamedTuple):
    """Characters [start, end)."""

    start: int
    end: int


class Aimed(NamedTuple):
    """What is explained, and which tokens are scored for it: the first lies inside the second."""

    target: Target
    scored: Target


def spelled_for(text: str, exchange: Exchange) -> str:
    """What a person wrote as a target, as a recipe holds it: a quotation becomes characters.

    Raises ValueError for what is no target, CannotExplain for one that this answer does not have.
    """
    if not text.startswith(QUOTE):
        aim = read_aim(text)
        check(aim, exchange)
        return str(aim)
    quoted = text.removeprefix(QUOTE)
    if not quoted:
        raise ValueError("the quotation is empty")
    start = exchange.output_text.find(quoted)
    if start < 0:
        raise CannotExplain("the quoted text does not stand in the answer; quote it exactly, white space included")
    if exchange.output_text.find(quoted, start + 1) >= 0:
        raise CannotExplain("the quoted text stands in the answer more than once; quote more of it, or give characters")
    return str(Aim("chars", start, start + len(quoted)))


def check(aim: Aim, exchange: Exchange) -> None:
    """Raises CannotExplain if the answer has no such part."""
    if aim.kind == "chars" and aim.end > len(exchange.output_text):
        raise CannotExplain(
            f"the answer's text has {len(exchange.output_text)} characters, so {aim.label} are not in it any more"
        )
    if aim.kind == "tool_call" and aim.call > len(_calls(exchange)):
        raise CannotExplain(f"the answer has {len(_calls(exchange))} tool calls, so there is no tool call {aim.call}")


def aim_at(aim: Aim, exchange: Exchange, tokens: TokenizedExchange, most: int) -> Aimed:
    """The tokens of an aim. The first `most` tokens of an answer are scored, and serve every aim among them; for an
    aim that reaches beyond them its own tokens are scored, at most `most`.

    Raises CannotExplain where the aim can't be found in the answer, or not in its tokens.
    """
    count = len(tokens.output_ids)
    usual = Target(0, min(count, most), is_cut=count > most)
    if aim.kind == "output":
        return Aimed(usual, usual)
    first, last = (0, 1) if aim.kind == "first_token" else _token_range(written(aim, exchange, tokens), tokens)
    if last <= usual.end:
        return Aimed(Target(first, last, aim.label), usual)
    target = Target(first, min(last, first + most), aim.label, is_cut=last - first > most)
    return Aimed(target, target)


def written(aim: Aim, exchange: Exchange, tokens: TokenizedExchange) -> Span:
    """Characters of what the model wrote (`tokens.output_text`). Raises CannotExplain."""
    check(aim, exchange)
    if not tokens.output_offsets:
        raise CannotExplain(
            "this answer's tokens are not those that its text is cut into, so a part of it can't be mapped to tokens; "
            "explain the whole output or its first token"
        )
    if aim.kind == "tool_call":
        return _call_span(aim, _calls(exchange), tokens.output_text)
    begin = tokens.output_text.rfind(exchange.output_text)  # behind any reasoning
    if begin < 0:
        raise CannotExplain("the answer's text does not stand in what the model wrote: the server changed it")
    return Span(begin + aim.start, begin + aim.end)


def _token_range(span: Span, tokens: TokenizedExchange) -> tuple[int, int]:
    """Every token that holds one of its characters."""
    inside = [i for i, (start, end) in enumerate(tokens.output_offsets) if start < span.end and end > span.start]
    if not inside:
        raise CannotExplain("no token of the answer holds any of these characters")
    return inside[0], inside[-1] + 1


def _calls(exchange: Exchange) -> tuple[ToolCall, ...]:
    return exchange.choices[0].tool_calls if exchange.choices else ()


def _call_span(aim: Aim, calls: tuple[ToolCall, ...], text: str) -> Span:
    """Calls stand in their order; the name of each before its arguments."""
    behind = 0
    for number, call in enumerate(calls[: aim.call], 1):
        arguments = _arguments(call.arguments, text, behind)
        if arguments is None:
            raise CannotExplain(
                f"the arguments of tool call {number} do not stand in what the model wrote as JSON (its format is "
                "another one), so they can't be mapped to tokens"
            )
        name = text.rfind(call.name, behind, arguments.start)
        if number == aim.call:
            if aim.part == "arguments":
                return arguments
            if name < 0 or not call.name:
                raise CannotExplain(f"the name of tool call {number} does not stand before its arguments")
            return Span(name, name + len(call.name)) if aim.part == "name" else Span(name, arguments.end)
        behind = arguments.end
    raise CannotExplain(f"there is no tool call {aim.call}")


def _arguments(arguments: str, text: str, behind: int) -> Span | None:
    """The first JSON object of the same meaning: parsers write a call's arguments anew, with other white space."""
    try:
        wanted = json.loads(arguments)
    except ValueError:
        start = text.find(arguments, behind) if arguments else -1
        return None if start < 0 else Span(start, start + len(arguments))
    decoder, start = json.JSONDecoder(), behind - 1
    for _ in range(_MOST_OBJECTS):
        start = text.find("{", start + 1)
        if start < 0:
            return None
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if value == wanted:
            return Span(start, end)
    return None
