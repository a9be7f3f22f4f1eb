"""Tables of chosen segments, and what the model said when it was asked again without some."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spex_proxy.facts.records.documented import documented
from spex_proxy.facts.records.exchanges import JobBrief


@documented
@dataclass(frozen=True, slots=True)
class CoalitionRecord:
    """One line: some of the chosen segments kept, the others left out."""

    kept: tuple[int, ...]
    """Those of the chosen segments that are kept, from 1."""
    value: float | None
    """Value of the answer while every other segment is kept."""
    measured: bool
    """True if the model was asked; false if the fitted spectrum predicts it."""
    average: float | None
    """Mean over the random masks that keep exactly these of the chosen segments; null without any."""
    error: float | None
    """Standard error of that mean; null for fewer than two masks."""
    count: int
    """How many masks that mean is over."""


@documented
@dataclass(frozen=True, slots=True)
class CoalitionTable:
    """The 2^k table of k chosen segments: what the answer is worth with none of them, with each, with all."""

    explanation_id: str
    segments: tuple[int, ...]
    """The chosen ones, from 1."""
    lines: tuple[CoalitionRecord, ...]
    """From none to all of them."""
    measured: int
    """How many of the lines were measured."""
    joint: float | None
    """What they do together while the rest is kept, beyond the sum of their parts: the alternating sum of values."""
    joint_average: float | None
    """The same of the averages; null if one of them is missing."""
    joint_error: float | None
    """Standard error of `joint_average`."""
    job: JobBrief | None
    """The newest job that was to measure the missing lines; null if nobody has asked."""


@documented
@dataclass(frozen=True, slots=True)
class FoundAgainRecord:
    """A flag of the original answer, looked for again in the new ones."""

    name: str
    control: bool
    """Whether the answer to the whole prompt raises it."""
    removed: bool
    """Whether the answer without the segments does."""


@documented
@dataclass(frozen=True, slots=True)
class RetestRecord:
    """The model asked again, at temperature 0: with the whole prompt, and without some segments."""

    id: str
    project: str
    exchange_id: str
    explanation_id: str
    """Whose segments are meant."""
    job_id: str
    segments: tuple[int, ...]
    """What was left out, from 1."""
    who: str
    created_at: datetime
    answered_at: datetime | None
    state: str
    """Of its job: `queued`, `running`, `paused`, and for good: `done`, `failed`, `cancelled`."""
    reason: str | None
    """Why it failed, or why it waits. It can be asked again."""
    finding: str | None
    """`same`: word for word the same without the segments; `changed`; `silent`: no text at all. Null until done."""
    gone: bool | None
    """Whether what was flagged is gone; null if no flagger could look again."""
    reproduced: bool | None
    """Whether the whole prompt, asked again, gives the stored answer word for word."""
    overlap: float | None
    """0 to 1: words that the answers with and without the segments share (Dice)."""
    control_overlap: float | None
    """The same of the stored answer and the one to the whole prompt."""
    flags: tuple[FoundAgainRecord, ...]
    summary: str
    """What it found, in words; empty until it is done."""
    control: str | None
    """What the model said to the whole prompt; null until done, and once erased."""
    removed: str | None
    """What it said without the segments; null until done, and once erased."""


@documented
@dataclass(frozen=True, slots=True)
class RetestList:
    """All re-tests of one exchange, newest first."""

    items: tuple[RetestRecord, ...]
