"""Jobs, and how far they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from spex_proxy.facts.records.documented import documented

FINAL_STATES = frozenset({"done", "failed", "cancelled"})
"""A job in one of these never changes again."""

PriorityName = Literal["asked", "flagged", "sampled"]


@documented
@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job, and how far it is."""

    id: str
    project: str
    exchange_id: str
    state: str
    """`queued`, `running`, `paused`, and for good: `done`, `failed`, `cancelled`."""
    kind: str
    """`explain`; `retest`: ask again without some segments; `table`: measure the missing lines of a table."""
    why: str
    """Why it was made."""
    priority: PriorityName
    attempts: int
    reason: str | None
    """Why it failed, or why it waits; of the last attempt."""
    position: int | None
    """Place in the queue, 1 = next; null unless it is queued."""
    masks: int
    """Readings that are committed for it; earlier jobs' readings of the same game count."""
    budget: int
    """Most masks that it may ask; 0 unless it explains. It ends earlier once the fit is good enough."""
    r2: float | None
    """Out-of-fold R2 of its explanation; until there is one, of the rounds that are answered; null before that."""
    explanation_id: str | None
    recipe: Mapping[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_over(self) -> bool:
        return self.state in FINAL_STATES
