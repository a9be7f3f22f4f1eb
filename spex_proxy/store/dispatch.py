"""What the runner of jobs (flows/jobs.py) does with the outbox: hand rows over, take them back from the dead."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from spex_proxy.store.columns import utc_now
from spex_proxy.store.outbox import BACK, COLUMNS, Job, ready
from spex_proxy.store.rows import clock, impatiently
from spex_proxy.store.tables import outbox


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A queued job on its way to the runner."""

    project: str
    job_id: str
    number: int
    priority: int


def undispatched(conn: sa.Connection, limit: int) -> tuple[Dispatch, ...]:
    """The most urgent jobs that may run and that the runner has not been given yet."""
    return _dispatches(conn, [*ready(clock(conn)), outbox.c.dispatched_at.is_(None)], limit)


def dispatched(conn: sa.Connection, limit: int) -> tuple[Dispatch, ...]:
    """The most urgent queued jobs that the runner should have."""
    return _dispatches(conn, [outbox.c.state == "queued", outbox.c.dispatched_at.is_not(None)], limit)


def _dispatches(conn: sa.Connection, which: list[sa.ColumnElement[bool]], limit: int) -> tuple[Dispatch, ...]:
    query = (
        sa.select(outbox.c.project, outbox.c.id, outbox.c.dispatch, outbox.c.priority)
        .where(*which)
        .order_by(outbox.c.priority, outbox.c.created_at, outbox.c.id)
        .limit(limit)
    )
    return tuple(Dispatch(*row) for row in conn.execute(query))


def mark_dispatched(conn: sa.Connection, given: Collection[Dispatch]) -> None:
    """The runner has them."""
    _mark(conn, given, {"dispatched_at": utc_now()})


def redispatch(conn: sa.Connection, lost: Collection[Dispatch]) -> int:
    """The runner has lost these, or has ended them without a claim: give them to it anew. Those that went on
    meanwhile are left as they are. Returns how many were not."""
    again = {"dispatch": outbox.c.dispatch + 1, "dispatched_at": None}
    return _mark(conn, lost, again)


def _mark(conn: sa.Connection, chosen: Collection[Dispatch], changes: Mapping[str, Any]) -> int:
    count = 0
    for one in chosen:
        this = [outbox.c.project == one.project, outbox.c.id == one.job_id, outbox.c.dispatch == one.number]
        count += conn.execute(sa.update(outbox).where(*this, outbox.c.state == "queued").values(**changes)).rowcount
    return count


def running_of(conn: sa.Connection, worker: str) -> set[tuple[str, str]]:
    """(project, id) of the jobs that run in the name of `worker`."""
    query = sa.select(outbox.c.project, outbox.c.id).where(outbox.c.state == "running", outbox.c.worker == worker)
    return {(row.project, row.id) for row in conn.execute(query)}


def take_over(conn: sa.Connection, live: Collection[str], *, most: int) -> tuple[Job, ...]:
    """Put back what runs in the name of a worker that is not among the `live` ones; returns the jobs as they are now.

    After `most` takeovers in a row, none of which has brought a reading, the job fails: it may be what kills
    its workers.
    """
    impatiently(conn)
    dead = conn.execute(
        sa.select(outbox.c.project, outbox.c.id, outbox.c.takeovers, outbox.c.worker)
        .where(outbox.c.state == "running", sa.or_(outbox.c.worker.is_(None), outbox.c.worker.not_in(live)))
        .with_for_update(skip_locked=True)
    ).all()
    taken = []
    for row in dead:
        changes: dict[str, Any] = BACK | {"takeovers": row.takeovers + 1}
        if row.takeovers >= most:
            reason = f"the worker died with this job {row.takeovers + 1} times in a row; the last was {row.worker}"
            changes = {"state": "failed", "reason": reason, "finished_at": utc_now()}
        this = [outbox.c.project == row.project, outbox.c.id == row.id]
        now = conn.execute(sa.update(outbox).where(*this).values(**changes).returning(*COLUMNS)).one()
        taken.append(Job(**now._mapping))
    return tuple(taken)
