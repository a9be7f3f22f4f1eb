"""A re-test: the model is asked again without some segments, and what it says is held beside what it said.

Both new answers are made at temperature 0 with the client's own parameters: `control` to the whole prompt,
`removed` to the prompt without the segments. So a difference between them is the segments' doing, and a
difference between `control` and the original answer is the sampling's.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from spex_proxy.facts.exchange import Choice, Exchange

Finding = Literal["same", "changed", "silent"]
"""What became of the answer without the segments: word for word the same, another one, or no text at all."""

MOST_REMOVED = 64
"""Segments that one re-test may take out."""
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One answer of the model. Content: stored erasable, never in a re-test's own row."""

    text: str
    """Its text, and behind that its tool calls, one on a line."""
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model said when it was asked again."""

    control: Spoken
    """To the whole prompt."""
    removed: Spoken
    """To the prompt without the segments."""


@dataclass(frozen=True, slots=True)
class Raised:
    """A flag of the original answer, looked for again by the flagger that raised it."""

    name: str
    control: bool
    removed: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a re-test found, without a word of content."""

    finding: Finding
    is_reproduced: bool
    """True if the control is word for word the original answer."""
    control_overlap: float
    """Of the control with the original answer, see `overlap`."""
    overlap: float
    """Of the answer without the segments with the control."""
    flags: tuple[Raised, ...]
    """Those that the original answer carried and whose flagger could look again."""
    prompt_tokens: int
    output_tokens: int
    """Of both requests together, as the server counts; 0 where it counts nothing."""

    @property
    def is_gone(self) -> bool | None:
        """Whether no flag is left that the whole prompt still raises; None if there is none to go by."""
        looked = [flag for flag in self.flags if flag.control]
        return not any(flag.removed for flag in looked) if looked else None


@dataclass(frozen=True, slots=True)
class Retest:
    """One re-test, asked or answered."""

    id: str
    project: str
    exchange_id: str
    explanation_id: str
    """Whose segments are meant."""
    job_id: str
    players: tuple[int, ...]
    """What was taken out, from 0, in order."""
    who: str
    created_at: datetime
    answered_at: datetime | None = None
    outcome: Outcome | None = None
    """None until it is answered."""


def spoken(choice: Choice) -> Spoken:
    """An answer as one text."""
    calls = [f"{call.name}({call.arguments})" for call in choice.tool_calls]
    return Spoken("\n".join(part for part in (choice.text, *calls) if part), choice.finish_reason)


def original_text(exchange: Exchange) -> str:
    """The stored answer in the same form."""
    return spoken(exchange.choices[0]).text if exchange.choices else exchange.output_text


def compare(
    original: str,
    answers: Answers,
    flags: tuple[Raised, ...] = (),
    *,
    prompt_tokens: int = 0,
    output_tokens: int = 0,
) -> Outcome:
    """What the answers say about the removed segments. White space at the ends means nothing."""
    control, removed = answers.control.text.strip(), answers.removed.text.strip()
    return Outcome(
        finding="silent" if not removed else "same" if removed == control else "changed",
        is_reproduced=control == original.strip(),
        control_overlap=overlap(original, control),
        overlap=overlap(control, removed),
        flags=flags,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
    )


def overlap(one: str, other: str) -> float:
    """0 to 1: twice the words that both have, over the words of both (Dice), case aside; 1 for two empty texts.

    Takes time in proportion to the texts: an answer may be a megabyte on one line.
    """
    a, b = (Counter(_WORD.findall(text.lower())) for text in (one, other))
    total = a.total() + b.total()
    return 2.0 * (a & b).total() / total if total else 1.0
