"""Cases for review."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spex_proxy.facts.records.documented import documented


@documented
@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One exchange that a person should judge, in one queue."""

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
    state: str
    """`open`, `claimed` or `done`."""
    created_at: datetime
    holder: str | None
    """Who has claimed it."""
    held_until: datetime | None
    """When the claim expires; until somebody else claims the case, its holder may still judge it."""
    label: str | None
    """The verdict, once it is done."""
    closed_at: datetime | None


@documented
@dataclass(frozen=True, slots=True)
class CaseEventRecord:
    """One line of a case's history. Lines are added, never changed."""

    number: int
    at: datetime
    who: str
    act: str
    """`opened`, `claimed`, `released`, `expired`, `judged`, `noted` or `reopened`."""
    label: str | None
    note: str | None


@documented
@dataclass(frozen=True, slots=True)
class CaseStory:
    """A case and all that happened to it."""

    case: CaseRecord
    history: tuple[CaseEventRecord, ...]
    """Oldest first."""


@documented
@dataclass(frozen=True, slots=True)
class CasePage:
    """One page of a list: the most urgent first, then the oldest."""

    items: tuple[CaseRecord, ...]
    next_cursor: str | None
    """Pass it as `cursor`, with the same filters, for the next page; null on the last one."""


@documented
@dataclass(frozen=True, slots=True)
class QueueRecord:
    """How one queue stands."""

    queue: str
    open: int
    claimed: int
    done: int
    oldest_open: datetime | None
    """When the oldest case that nobody has claimed was opened."""


@documented
@dataclass(frozen=True, slots=True)
class ReviewRecord:
    """All queues that have cases, and what a verdict may be."""

    queues: tuple[QueueRecord, ...]
    labels: tuple[str, ...]
