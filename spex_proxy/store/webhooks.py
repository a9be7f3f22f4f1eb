"""Whom rules tell: written with the flag, sent later by a worker, each at least once and at most so often."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from spex_proxy.store.columns import DEFAULT_PROJECT, utc_now
from spex_proxy.store.rows import clock, impatiently, insert_new
from spex_proxy.store.tables_of_flags import webhooks

_IDS = uuid.UUID("0d0a1c55-0f5b-4f35-9b7e-5370657877b1")
MOST_TRIES = 8
FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(hours=1)
LEASE = timedelta(minutes=1)
"""Whoever sends one has so long; then another may."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One that is to be sent."""

    id: str
    project: str
    url: str
    rule: str
    rules_digest: str | None
    exchange_id: str
    explanation_id: str | None
    flags: Sequence[str]
    tries: int
    """This one included."""
    created_at: datetime


_COLUMNS = [webhooks.c[field.name] for field in dataclasses.fields(Notice)]


def plan(
    conn: sa.Connection,
    url: str,
    *,
    rule: str,
    rules_digest: str | None,
    exchange_id: str,
    explanation_id: str | None,
    flags: Sequence[str],
    project: str = DEFAULT_PROJECT,
) -> bool:
    """Have an address told; False, changing nothing, if this rule has told it of these flags of this exchange."""
    now = utc_now()
    row = {
        "project": project,
        "id": str(uuid.uuid5(_IDS, "\n".join((project, rule, exchange_id, *sorted(flags))))),
        "url": url,
        "rule": rule,
        "rules_digest": rules_digest,
        "exchange_id": exchange_id,
        "explanation_id": explanation_id,
        "flags": list(flags),
        "state": "due",
        "tries": 0,
        "due_at": now,
        "created_at": now,
    }
    return insert_new(conn, webhooks, row)


def claim_due(conn: sa.Connection) -> Notice | None:
    """The next one to send, this sender's for a while; None if none is due."""
    impatiently(conn)
    now = clock(conn)
    due = (
        sa.select(webhooks.c.project, webhooks.c.id)
        .where(webhooks.c.state == "due", webhooks.c.due_at <= now)
        .order_by(webhooks.c.due_at, webhooks.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    key = conn.execute(due).first()
    if key is None:
        return None
    changed = (
        sa.update(webhooks)
        .where(webhooks.c.project == key.project, webhooks.c.id == key.id)
        .values(tries=webhooks.c.tries + 1, due_at=now + LEASE)
        .returning(*_COLUMNS)
    )
    return Notice(**conn.execute(changed).one()._mapping)


def settle(conn: sa.Connection, notice: Notice, failure: str | None) -> None:
    """It was taken (no `failure`); or it is sent again after a pause that doubles, until the tries are used up."""
    now = clock(conn)
    if failure is None:
        changes = {"state": "sent", "finished_at": now, "reason": None}
    elif notice.tries >= MOST_TRIES:
        changes = {"state": "failed", "finished_at": now, "reason": failure}
    else:
        pause = min(FIRST_PAUSE * 2 ** (notice.tries - 1), LONGEST_PAUSE)
        changes = {"due_at": now + pause, "reason": failure}
    conn.execute(
        sa.update(webhooks)
        .where(
            webhooks.c.project == notice.project,
            webhooks.c.id == notice.id,
            webhooks.c.tries == notice.tries,
            webhooks.c.state == "due",
        )
        .values(**changes)
    )
