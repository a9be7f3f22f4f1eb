"""The outbox: what is to be explained, written in the transaction that saves the exchange.

    queued -> running -> done
     ^  ^       |-----> failed        for good; `reason` says why
     |  '-------|                     a failure that may pass, or a worker that died
     |          |
     '- paused -'                     both, and `queued`, may also become `cancelled`

A claim is (id, attempts). Whoever keeps a reading or ends a job must still hold the claim: a worker that
was stopped, lost its job to another one and woke up again is told so, and its transaction rolls back.

The runner (flows/jobs.py) is handed (id, dispatch), once: every road back to `queued` raises `dispatch`,
so what it still knows of an earlier one can claim nothing. What people ask for is in store/steering.py.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Literal, get_args

import sqlalchemy as sa

from spex_proxy.facts.errors import ClaimLost, NotFound
from spex_proxy.facts.recipe import Recipe
from spex_proxy.store import codec
from spex_proxy.store.columns import DEFAULT_PROJECT, utc_now
from spex_proxy.store.rows import clock, impatiently
from spex_proxy.store.tables import outbox, pauses

JobState = Literal["queued", "running", "paused", "done", "failed", "cancelled"]

JobKind = Literal["explain", "retest", "table", "share"]
"""What is to be done: explain an exchange, ask again without some segments, measure the missing lines of a table, or
help to measure what another job explains."""

LONGEST_PAUSE = timedelta(hours=1)
"""No job is left alone for longer: a `retry_at` further ahead was written before the clock was set back."""


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
    dispatch: int
    """How often it came back to the queue."""
    failures: int
    """Attempts that ended with a failure that may pass."""
    takeovers: int
    """Workers that died with it, one after the other, without a reading in between."""
    r2_so_far: float | None
    """Out-of-fold R2 of the rounds that are answered; None before the first is."""
    kind: JobKind = "explain"
    task: Mapping[str, Any] | None = None
    """What a retest or a table is about, by ids and numbers; None for an explanation."""

    def recipe(self) -> Recipe:
        """Raises SpexError for a recipe of a newer version: the job fails, the queue goes on."""
        return codec.build(Recipe, self.recipe_json, f"recipe of job {self.id}")


COLUMNS = [
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
    job_id: str | None = None,
    kind: JobKind = "explain",
    task: Mapping[str, Any] | None = None,
) -> str:
    """Ask for something about a saved exchange; returns the job's id, a new one unless `job_id` is given."""
    job_id = job_id or str(uuid.uuid4())
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
            dispatch=0,
            failures=0,
            takeovers=0,
            created_at=utc_now(),
            kind=kind,
            task=sa.null() if task is None else dict(task),
        )
    )
    return job_id


def claim(
    conn: sa.Connection,
    worker: str,
    *,
    job_id: str | None = None,
    dispatch: int | None = None,
    now: datetime | None = None,
) -> Job | None:
    """Take the most urgent queued job, oldest first, or the one with `job_id`; None if there is none.

    `worker` names the process that answers for it. No two workers get the same job: on PostgreSQL a row
    that another one is taking is passed over, on SQLite writers come one after the other.
    With `dispatch`, nobody claims what was put back to the queue since that number was read.
    """
    impatiently(conn)
    moment = now or clock(conn)
    which = ready(moment)
    if job_id is not None:
        which.append(outbox.c.id == job_id)
    if dispatch is not None:
        which.append(outbox.c.dispatch == dispatch)
    key = conn.execute(
        sa.select(outbox.c.project, outbox.c.id)
        .where(*which)
        .order_by(outbox.c.priority, outbox.c.created_at, outbox.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=outbox)
    ).first()
    if key is None:
        return None
    row = conn.execute(
        sa.update(outbox)
        .where(outbox.c.project == key.project, outbox.c.id == key.id)
        .values(state="running", attempts=outbox.c.attempts + 1, worker=worker, started_at=moment, retry_at=None)
        .returning(*COLUMNS)
    ).one()
    return Job(**row._mapping)


def ready(moment: datetime) -> list[sa.ColumnElement[bool]]:
    """Queued, not left alone until later, in a project whose queue isn't paused."""
    at = outbox.c.retry_at
    return [
        outbox.c.state == "queued",
        sa.or_(at.is_(None), at <= moment, at > moment + LONGEST_PAUSE),
        ~sa.exists().where(pauses.c.project == outbox.c.project),
    ]


def hold(conn: sa.Connection, job: Job, *, r2: float | None = None) -> JobState:
    """Whoever is about to keep something of a job proves its claim, and keeps it until the transaction ends.

    Returns `running`; or `paused` if a person has paused the job, or `queued` if they have paused its queue,
    which hands it back: then what was answered is kept, and nothing more is asked. Raises ClaimLost.
    A job that gets on is not what kills its workers: its takeovers are counted anew. `r2`, if one is known
    that is finite, is noted for whoever watches.
    """
    impatiently(conn)
    held = [*_claimed(job), outbox.c.state.in_(("running", "paused"))]
    found = {} if r2 is None or not math.isfinite(r2) else {"r2_so_far": r2}
    changed = sa.update(outbox).where(*held).values(takeovers=0, **found)
    state: JobState | None = conn.scalar(changed.returning(outbox.c.state))
    if state is None:
        raise _lost(job)
    if state == "running" and is_paused(conn, job.project):
        conn.execute(sa.update(outbox).where(*held).values(**BACK))
        return "queued"
    return state


def finish(conn: sa.Connection, job: Job, explanation_id: str | None) -> None:
    """What was asked for is stored, in this same transaction: the explanation, or something about or towards it.
    Raises ClaimLost."""
    _end(conn, job, state="done", explanation_id=explanation_id, reason=None, finished_at=utc_now())


def fail(conn: sa.Connection, job: Job, reason: str, *, final: bool, retry_at: datetime | None = None) -> None:
    """Give up for good (`final`), or hand the job back to be tried again, not before `retry_at`.

    `reason` is kept for people and outlives the content: it must quote none.
    Raises ClaimLost.
    """
    if final:
        _end(conn, job, state="failed", reason=reason, finished_at=utc_now())
    else:
        _end(conn, job, reason=reason, failures=outbox.c.failures + 1, **BACK | {"retry_at": retry_at})


def _end(conn: sa.Connection, job: Job, **changes: Any) -> None:
    impatiently(conn)
    result = conn.execute(sa.update(outbox).where(*_claimed(job), outbox.c.state == "running").values(**changes))
    if result.rowcount != 1:
        raise _lost(job)


def _claimed(job: Job) -> list[sa.ColumnElement[bool]]:
    return [outbox.c.project == job.project, outbox.c.id == job.id, outbox.c.attempts == job.attempts]


def _lost(job: Job) -> ClaimLost:
    return ClaimLost(
        f"job {job.id} no longer belongs to {job.worker} (attempt {job.attempts}): it was taken over or "
        "ended elsewhere, and nothing of this attempt is kept"
    )


BACK: dict[str, Any] = {
    "state": "queued",
    "worker": None,
    "retry_at": None,
    "dispatch": outbox.c.dispatch + 1,
    "dispatched_at": None,
}
"""Every road back to the queue."""


def requeue_running(
    conn: sa.Connection, worker: str | None = None, *, only: Collection[tuple[str, str]] | None = None
) -> int:
    """Hand back what `worker` had claimed, or, without a name, what anybody had; of these, `only` some.

    For a worker that stops, or that finds jobs under its name which it does not run. Returns how many.
    """
    mine = [outbox.c.state == "running"]
    if worker is not None:
        mine.append(outbox.c.worker == worker)
    if only is not None:
        mine.append(sa.tuple_(outbox.c.project, outbox.c.id).in_(only))
    return conn.execute(sa.update(outbox).where(*mine).values(**BACK)).rowcount


# ---- reading ----


def load_job(conn: sa.Connection, job_id: str, *, project: str = DEFAULT_PROJECT) -> Job:
    """Raises NotFound."""
    row = conn.execute(sa.select(*COLUMNS).where(outbox.c.project == project, outbox.c.id == job_id)).first()
    if row is None:
        raise NotFound(f"there is no job {job_id!r} in project {project!r}")
    return Job(**row._mapping)


def jobs_of_exchange(
    conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT, kind: JobKind = "explain"
) -> tuple[Job, ...]:
    """All jobs of one kind for one exchange, newest first: why it is not explained yet, or never will be."""
    query = (
        sa.select(*COLUMNS)
        .where(outbox.c.project == project, outbox.c.exchange_id == exchange_id, outbox.c.kind == kind)
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


def is_paused(conn: sa.Connection, project: str = DEFAULT_PROJECT) -> bool:
    """Whether the whole queue of a project is."""
    return conn.scalar(sa.select(pauses.c.project).where(pauses.c.project == project)) is not None
