"""What people ask of jobs: cancel, pause, resume; of one job or of a project's whole queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from spex_proxy.store.columns import DEFAULT_PROJECT, utc_now
from spex_proxy.store.outbox import BACK, JobState, load_job
from spex_proxy.store.rows import get_or_create_project, impatiently, insert_new
from spex_proxy.store.tables import outbox, pauses


def cancel(conn: sa.Connection, job_id: str, *, project: str = DEFAULT_PROJECT) -> bool:
    """End a job that has not ended; if it runs, its worker stops at the next batch. False if it had ended.

    Raises NotFound, as do `pause` and `resume`.
    """
    changes = {"state": "cancelled", "reason": "cancelled", "finished_at": utc_now()}
    return _ask(conn, job_id, project, ("queued", "running", "paused"), changes)


def pause(conn: sa.Connection, job_id: str, *, project: str = DEFAULT_PROJECT) -> bool:
    """Leave a job alone until `resume`; if it runs, its worker stops after the batch that is being answered.
    False if it has ended or is paused already."""
    return _ask(conn, job_id, project, ("queued", "running"), {"state": "paused"})


def resume(conn: sa.Connection, job_id: str, *, project: str = DEFAULT_PROJECT) -> bool:
    """Back to the queue, at once; False if it is not paused."""
    return _ask(conn, job_id, project, ("paused",), BACK)


def hurry(conn: sa.Connection, job_id: str, priority: int, *, project: str = DEFAULT_PROJECT) -> bool:
    """Let a job that waits go ahead of what is less urgent; False if it does not wait, or is as urgent already."""
    this = [outbox.c.project == project, outbox.c.id == job_id, outbox.c.state == "queued"]
    changed = sa.update(outbox).where(*this, outbox.c.priority > priority).values(priority=priority)
    return conn.execute(changed).rowcount == 1


def pause_queue(conn: sa.Connection, *, project: str = DEFAULT_PROJECT) -> bool:
    """Start nothing of this project any more, and hand back what runs after the batch that is being answered.
    False if it is paused already. Jobs may still be enqueued."""
    get_or_create_project(conn, project)
    return insert_new(conn, pauses, {"project": project, "paused_at": utc_now()})


def resume_queue(conn: sa.Connection, *, project: str = DEFAULT_PROJECT) -> bool:
    """False if it was not paused."""
    return conn.execute(sa.delete(pauses).where(pauses.c.project == project)).rowcount == 1


def _ask(
    conn: sa.Connection, job_id: str, project: str, states: Sequence[JobState], changes: Mapping[str, Any]
) -> bool:
    impatiently(conn)
    this = [outbox.c.project == project, outbox.c.id == job_id]
    if conn.execute(sa.update(outbox).where(*this, outbox.c.state.in_(states)).values(**changes)).rowcount == 1:
        return True
    load_job(conn, job_id, project=project)
    return False
