"""A case: an exchange that a person should judge, in a queue. Its history is only ever added to.

    open --claim--> claimed --judge--> done
     ^                 |                 |
     +----- release ---+                 |
     +----- (the claim expired) ---------+-- reopen

`take` is the whole rule book: pure, so that the store, the API and the tests follow the same one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

CaseState = Literal["open", "claimed", "done"]
Act = Literal["opened", "claimed", "released", "expired", "judged", "noted", "reopened"]
Wish = Literal["claim", "release", "judge", "note", "reopen"]

LABELS = ("harmless", "wrong", "unsafe", "injected", "unclear")
"""What a verdict may be, unless the operator says otherwise."""
MOST_CHARACTERS = 10_000
"""Of a note."""


@dataclass(frozen=True, slots=True)
class Case:
    """One exchange in one queue."""

    id: str
    project: str
    queue: str
    exchange_id: str
    explanation_id: str | None
    """The explanation that raised it, if one did."""
    why: str
    """Name of the flag that raised it, or `person`."""
    priority: int
    """1 is the most urgent."""
    state: CaseState
    created_at: datetime
    holder: str | None = None
    """Who has claimed it."""
    held_until: datetime | None = None
    """When the claim expires. Until another person claims the case, its holder may still judge it."""
    label: str | None = None
    """The verdict, once it is done."""
    closed_at: datetime | None = None
    events: int = 0
    """How many lines its history has."""


@dataclass(frozen=True, slots=True)
class CaseEvent:
    """One line of a case's history."""

    number: int
    """From 0, without gaps."""
    at: datetime
    who: str
    act: Act
    label: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A case after a wish was granted, and what is added to its history."""

    case: Case
    events: tuple[CaseEvent, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A wish that was not granted, in words for the person who had it."""

    reason: str


def opened(case: Case, who: str, note: str | None = None) -> Step:
    """The first line of its history."""
    return Step(replace(case, events=1), (CaseEvent(0, case.created_at, who, "opened", note=note),))


def take(
    case: Case,
    wish: Wish,
    who: str,
    now: datetime,
    *,
    hold: timedelta,
    label: str | None = None,
    note: str | None = None,
) -> Step | Refusal:
    """What becomes of a case when somebody wishes something.

    A claim holds for `hold`; claiming again what one has makes it hold longer, and leaves no line. `label`:
    of `judge`, already known to be one of the operator's. `note`: of `judge` and `note`.
    """
    is_free = case.state == "open" or (case.state == "claimed" and _is_expired(case, now))
    match wish:
        case "claim":
            return _claim(case, who, now, now + hold, is_free)
        case "release" if case.state == "claimed" and case.holder == who:
            return _step(_let_go(case), (now, who, "released"))
        case "judge" if case.state == "claimed" and case.holder == who:
            done = replace(_let_go(case), state="done", label=label, closed_at=now)
            return _step(done, (now, who, "judged"), label=label, note=note)
        case "note":
            return _step(case, (now, who, "noted"), note=note)
        case "reopen" if case.state == "done":
            return _step(replace(case, state="open", label=None, closed_at=None), (now, who, "reopened"), note=note)
        case _:
            return Refusal(_why_not(case, wish, who))


def _claim(case: Case, who: str, now: datetime, until: datetime, is_free: bool) -> Step | Refusal:
    if case.state == "claimed" and case.holder == who:
        return Step(replace(case, held_until=until), ())
    if not is_free:
        return Refusal(_why_not(case, "claim", who))
    claimed = replace(case, state="claimed", holder=who, held_until=until)
    if case.state == "open":
        return _step(claimed, (now, who, "claimed"))
    return _step(claimed, (now, case.holder or who, "expired"), (now, who, "claimed"))


def _is_expired(case: Case, now: datetime) -> bool:
    return case.held_until is not None and case.held_until <= now


def _let_go(case: Case) -> Case:
    return replace(case, state="open", holder=None, held_until=None)


def _step(case: Case, *lines: tuple[datetime, str, Act], label: str | None = None, note: str | None = None) -> Step:
    """Label and note belong to the last line."""
    first, last = case.events, len(lines) - 1
    events = tuple(
        CaseEvent(first + i, at, who, act, label if i == last else None, note if i == last else None)
        for i, (at, who, act) in enumerate(lines)
    )
    return Step(replace(case, events=first + len(lines)), events)


def _why_not(case: Case, wish: Wish, who: str) -> str:
    if case.state == "done":
        return f"case {case.id} is closed ({case.label}); reopen it first"
    if wish == "reopen":
        return f"case {case.id} is {case.state}: only a closed case can be reopened"
    if case.state == "open":
        return f"case {case.id} is nobody's: claim it first"
    until = f"{case.held_until:%H:%M:%S} UTC" if case.held_until else "it is released"
    return f"case {case.id} is {case.holder}'s until {until}, not {who}'s"
