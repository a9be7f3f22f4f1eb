"""Flags on exchanges and on their explanations."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spex_proxy.facts.records.documented import documented


@documented
@dataclass(frozen=True, slots=True)
class RaisedRecord:
    """Something that a person should look at, who said so, and when."""

    id: str
    exchange_id: str | None
    explanation_id: str | None
    """Null: the exchange itself was flagged."""
    name: str
    detail: str
    score: float | None
    flagger: str
    """Name of a plugin; `verdict` or `target` for what every explanation says of itself; `feedback`; or what an outside
    guardrail calls itself."""
    version: str
    """Of the flagger, `distribution version`; empty if nobody said."""
    who: str | None
    """Whoever sent it, by their own account; null for our own flaggers."""
    raised_at: datetime


@documented
@dataclass(frozen=True, slots=True)
class RaisedList:
    """All flags of one exchange and of its explanations, oldest first."""

    items: tuple[RaisedRecord, ...]
