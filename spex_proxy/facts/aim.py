"""An aim: which part of an answer somebody wants explained, before anyone knows its tokens.

Spelled as one text, which a recipe holds. It quotes nothing, so that it may outlive the content:

    output                   the whole answer
    first_token              its first token
    chars:10-24              characters [10, 24) of its text
    tool_call:1              the first tool call: from its name to the end of its arguments
    tool_call:1:name         its name alone
    tool_call:1:arguments    its arguments alone
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

AimKind = Literal["output", "first_token", "chars", "tool_call"]
CallPart = Literal["call", "name", "arguments"]

WHOLE_OUTPUT = "output"
QUOTE = "quote:"
"""What a person may write instead of `chars`: the text itself. `spelled_for` turns it into characters."""
_FORMS = re.compile(r"output|first_token|chars:(\d{1,9})-(\d{1,9})|tool_call:([1-9]\d{0,3})(?::(name|arguments))?")


@dataclass(frozen=True, slots=True)
class Aim:
    """What to explain of an answer."""

    kind: AimKind = "output"
    start: int = 0
    """Of `chars`: characters [start, end) of the answer's text."""
    end: int = 0
    call: int = 1
    """Of `tool_call`: which, from 1."""
    part: CallPart = "call"

    def __str__(self) -> str:
        if self.kind == "chars":
            return f"chars:{self.start}-{self.end}"
        if self.kind == "tool_call":
            return f"tool_call:{self.call}" + ("" if self.part == "call" else f":{self.part}")
        return self.kind

    @property
    def label(self) -> str:
        """In words, without content."""
        if self.kind == "chars":
            return f"characters {self.start} to {self.end}"
        if self.kind == "tool_call":
            which = f"tool call {self.call}"
            return which if self.part == "call" else f"{self.part} of {which}"
        return {"output": "whole output", "first_token": "first token"}[self.kind]


def read_aim(text: str) -> Aim:
    """The inverse of `str`. Raises ValueError, in words for whoever wrote it."""
    found = _FORMS.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text[:60]!r} is no target; write output, first_token, chars:10-24, tool_call:1, tool_call:1:name or "
            "tool_call:1:arguments"
        )
    start, end, call, part = found.groups()
    if start is not None:
        if int(start) >= int(end):
            raise ValueError(f"{text!r} holds no character: the second number must be larger")
        return Aim("chars", int(start), int(end))
    if call is not None:
        return Aim("tool_call", call=int(call), part=cast(CallPart, part or "call"))
    return Aim("first_token" if text == "first_token" else "output")
