"""Flaggers of exchanges: what a request with its answer says before anything is explained.

Details quote no content: they outlive it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from spex_proxy.plug.kinds import Seen
from spex_proxy.wire.patterns import SEARCHED_CHARACTERS, expression, fits_glob
from spex_proxy_standard.options import names, number, read, regex

Found = Sequence[tuple[str, float | None]]

_REFUSAL = (
    r"(?i)^\W*(?:i['’]?m |i am )?(?:very |so )?(?:sorry|apologi[sz]e|afraid)\b.{0,60}"
    r"\b(?:can(?:no|['’])t|unable|won['’]t)"
    r"|^\W*i (?:can(?:no|['’])t|won['’]t|am (?:not able|unable) to|['’]m (?:not able|unable) to) "
    r"(?:help|assist|do|provide|comply|fulfil|answer|discuss|share|support|create|generate|write|give)"
    r"|^\W*as an ai\b.{0,80}\b(?:can(?:no|['’])t|unable|not able)"
)
_BEGINNING = 400
"""A refusal stands at an answer's beginning."""


class Regex:
    """A regular expression (RE2) is found. Options: `output`, `input`, one of them or both."""

    name = "regex"
    about = "exchange"

    def check(self, options: Mapping[str, Any]) -> None:
        read(options, {"output": regex, "input": regex}, needs=("output", "input"))

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Found:
        wanted = read(options, {"output": regex, "input": regex})
        places = (
            ("output", [choice.text for choice in seen.exchange.choices] or [seen.exchange.output_text], "answer"),
            ("input", [message.text for message in seen.exchange.messages], "message"),
        )
        found: list[tuple[str, float | None]] = []
        for name, texts, what in places:
            for position, text in enumerate(texts) if name in wanted else ():
                hit = wanted[name].search(text[:SEARCHED_CHARACTERS])
                if hit is not None:
                    found.append((f"in {what} {position + 1}, characters {hit.start()} to {hit.end()}", None))
        return found


class Refusal:
    """The model declines, in the English words that models decline in. Option: `more`, another expression."""

    name = "refusal"
    about = "exchange"

    def check(self, options: Mapping[str, Any]) -> None:
        read(options, {"more": regex})

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Found:
        expressions = [expression(_REFUSAL), *read(options, {"more": regex}).values()]
        beginning = seen.exchange.output_text[:_BEGINNING]
        if seen.exchange.finish_reason in ("content_filter", "refusal"):
            return [(f"finish_reason {seen.exchange.finish_reason}", None)]
        return [("the answer declines", None)] if any(one.search(beginning) for one in expressions) else []


class LowConfidence:
    """The answer's log-probabilities are low; only where clients ask for them. Options: `mean_below` (-1.5),
    `lowest_below`, natural logarithms."""

    name = "low_confidence"
    about = "exchange"

    def check(self, options: Mapping[str, Any]) -> None:
        read(options, {"mean_below": number, "lowest_below": number})

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Found:
        wanted = read(options, {"mean_below": number, "lowest_below": number}) or {"mean_below": -1.5}
        values = [value for choice in seen.exchange.choices for _, value in choice.logprobs or ()]
        if not values:
            return []
        figures = {"mean_below": math.fsum(values) / len(values), "lowest_below": min(values)}
        words = {"mean_below": "mean log-probability", "lowest_below": "lowest log-probability of a token"}
        return [
            (f"{words[name]} {figures[name]:.2f}, below {bound:g}", figures[name])
            for name, bound in wanted.items()
            if figures[name] < bound
        ]


class ToolCalled:
    """The answer calls a tool. Option: `tool`, patterns for its name."""

    name = "tool_called"
    about = "exchange"

    def check(self, options: Mapping[str, Any]) -> None:
        read(options, {"tool": names})

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Found:
        patterns = read(options, {"tool": names}).get("tool", ("*",))
        calls = [call for choice in seen.exchange.choices for call in choice.tool_calls]
        return [
            (f"tool call {number} fits {pattern}", None)
            for number, call in enumerate(calls, 1)
            for pattern in [next((p for p in patterns if fits_glob(p, call.name)), None)]
            if pattern is not None
        ]


class FinishReason:
    """The answer ended in a way that it should not. Option: `reason`, patterns (`length`, `max_tokens`,
    `content_filter`)."""

    name = "finish_reason"
    about = "exchange"

    def check(self, options: Mapping[str, Any]) -> None:
        read(options, {"reason": names})

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Found:
        patterns = read(options, {"reason": names}).get("reason", ("length", "max_tokens", "content_filter"))
        said = seen.exchange.finish_reason or ""
        return [(f"finish_reason {said}", None)] if any(fits_glob(p, said) for p in patterns) else []


class Latency:
    """It took long. Options, in seconds: `first_byte_s`, `duration_s`, one of them or both."""

    name = "latency"
    about = "exchange"

    def check(self, options: Mapping[str, Any]) -> None:
        read(options, {"first_byte_s": number, "duration_s": number}, needs=("first_byte_s", "duration_s"))

    def inspect(self, seen: Seen, options: Mapping[str, Any]) -> Found:
        wanted = read(options, {"first_byte_s": number, "duration_s": number})
        took = {"first_byte_s": seen.exchange.first_byte_s, "duration_s": seen.exchange.duration_s}
        return [
            (f"{name} {took[name]:.2f}, more than {bound:g}", took[name])
            for name, bound in wanted.items()
            if took[name] > bound
        ]
