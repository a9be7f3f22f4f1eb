"""The outbox: what is to be explained, written in the transaction that saves the exchange.

    queued -> running -> done
      ^          |-----> failed       for good; `reason` says why
      |----------'                    a failure that may pass, or a worker that died

A claim is (id, attempts). Whoever ends a job must still hold the claim: a worker that was stopped,
lost its job to another one and woke up again is told so, and its transaction rolls back.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, Literal, get_args

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.recipe import Recipe
from spex_proxy.store import codec
from spex_proxy.store.tables import DEFAULT_PROJECT, outbox, utc_now

JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class Priority(IntEnum):
    """Smaller is sooner."""

    ASKED = 1
    """A person waits for it."""
    FLAGGED = 2
    SAMPLED = 3


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the outbox, as it was when it was read."""

    id: str
    project: str
    exchange_id: str
    recipe_json: Mapping[str, Any]
    traceparent: str | None
    """Of the request's span: the job's span is linked to it."""
    tracestate: str | None
    priority: int
    why: str
    state: JobState
    attempts: int
    """Claims so far, this one included."""
    reason: str | None
    """Of the last failure."""
    explanation_id: str | None
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    def recipe(self) -> Recipe:
        """Raises SpexError for a recipe of a newer version: the job fails, the queue goes on."""
        return codec.build(Recipe, self.recipe_json, f"recipe of job {self.id}")


_COLUMNS = [
    outbox.c.recipe.label("recipe_json") if name == "recipe_json" else outbox.c[name]
    for name in Job.__dataclass_fields__
]


def enqueue(
    conn: sa.Connection,
    *,
    exchange_id: str,
    recipe: Recipe,
    why: str,
    priority: int = Priority.SAMPLED,
    traceparent: str | None = None,
    tracestate: str | None = None,
    project: str = DEFAULT_PROJECT,
) -> str:
    """Ask for an explanation of a saved exchange; returns the job's id."""
    job_id = str(uuid.uuid4())
    conn.execute(
        sa.insert(outbox).values(
            id=job_id,
            project=project,
            exchange_id=exchange_id,
            recipe=recipe.to_json(),
            traceparent=traceparent,
            tracestate=tracestate,
            priority=int(priority),
            why=why,
            state="queued",
            attempts=0,
            created_at=utc_now(),
        )
    )
    return job_id


def claim(conn: sa.Connection, worker: str, *, job_id: str | None = None, now: datetime | None = None) -> Job | None:
    """Take the most urgent queued job, oldest first, or the one with `job_id`; None if there is none.

    `worker` names the process that answers for it. No two workers get the same job: on PostgreSQL a row
    that another one is taking is passed over, on SQLite writers come one after the other.
    """
    moment = now or utc_now()
    ready = [outbox.c.state == "queued", sa.or_(outbox.c.retry_at.is_(None), outbox.c.retry_at <= moment)]
    if job_id is not None:
        ready.append(outbox.c.id == job_id)
    key = conn.execute(
        sa.select(outbox.c.project, outbox.c.id)
        .where(*ready)
        .order_by(outbox.c.priority, outbox.c.created_at, outbox.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).first()
    if key is None:
        return None
    row = conn.execute(
        sa.update(outbox)
        .where(outbox.c.project == key.project, outbox.c.id == key.id)
        .values(
            state="running",
            attempts=outbox.c.attempts + 1,
            worker=worker,
            started_at=moment,
            heartbeat_at=moment,
            retry_at=None,
        )
        .returning(*_COLUMNS)
    ).one()
    return Job(**row._mapping)


def finish(conn: sa.Connection, job: Job, explanation_id: str) -> None:
    """The explanation is stored, in this same transaction. Raises NotFound if the claim was lost."""
    _end(conn, job, state="done", explanation_id=explanation_id, reason=None, finished_at=utc_now())


def fail(conn: sa.Connection, job: Job, reason: str, *, final: bool, retry_at: datetime | None = None) -> None:
    """Give up for good (`final`), or hand the job back to be tried again, not before `retry_at`.

    `reason` is kept for people and outlives the content: it must quote none.
    Raises NotFound if the claim was lost.
    """
    if final:
        _end(conn, job, state="failed", reason=reason, finished_at=utc_now())
    else:
        _end(conn, job, state="queued", reason=reason, worker=None, heartbeat_at=None, retry_at=retry_at)


def _end(conn: sa.Connection, job: Job, **changes: Any) -> None:
    result = conn.execute(
        sa.update(outbox)
        .where(
            outbox.c.project == job.project,
            outbox.c.id == job.id,
            outbox.c.state == "running",
            outbox.c.attempts == job.attempts,
        )
        .values(**changes)
    )
    if result.rowcount != 1:
        raise NotFound(
            f"job {job.id} no longer belongs to {job.worker} (attempt {job.attempts}): it was taken over or "
            "ended elsewhere, and nothing of this attempt is kept"
        )


def requeue_running(conn: sa.Connection, worker: str | None = None) -> int:
    """Hand back what a worker that no longer runs had claimed, or, without a name, what anybody had.

    Called when a worker starts, under the name that it will claim with. Returns how many.
    """
    mine = [outbox.c.state == "running"]
    if worker is not None:
        mine.append(outbox.c.worker == worker)
    result = conn.execute(sa.update(outbox).where(*mine).values(state="queued", worker=None, heartbeat_at=None))
    return result.rowcount


def load_job(conn: sa.Connection, job_id: str, *, project: str = DEFAULT_PROJECT) -> Job:
    """Raises NotFound."""
    row = conn.execute(sa.select(*_COLUMNS).where(outbox.c.project == project, outbox.c.id == job_id)).first()
    if row is None:
        raise NotFound(f"there is no job {job_id!r} in project {project!r}")
    return Job(**row._mapping)


def jobs_of_exchange(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> tuple[Job, ...]:
    """All jobs of one exchange, newest first: why it is not explained yet, or never will be."""
    query = (
        sa.select(*_COLUMNS)
        .where(outbox.c.project == project, outbox.c.exchange_id == exchange_id)
        .order_by(outbox.c.created_at.desc(), outbox.c.id.desc())
    )
    return tuple(Job(**row._mapping) for row in conn.execute(query))


def counts(conn: sa.Connection, project: str | None = None) -> dict[JobState, int]:
    """How many jobs are in each state, zeros included; of all projects if none is named."""
    query = sa.select(outbox.c.state, sa.func.count().label("n")).group_by(outbox.c.state)
    if project is not None:
        query = query.where(outbox.c.project == project)
    found = {row.state: row.n for row in conn.execute(query)}
    return {state: found.get(state, 0) for state in get_args(JobState)}
