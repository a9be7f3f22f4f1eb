"""The condition of the store: can it be written, where does it stand, how much room is left. For `doctor`.

Everything here only looks: what is tried is rolled back.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from spex_proxy.store import outbox as jobs
from spex_proxy.store.connect import reading
from spex_proxy.store.outbox import JobState
from spex_proxy.store.rows import clock
from spex_proxy.store.tables import outbox, pauses, projects
from spex_proxy.store.workers import live

LATELY = timedelta(seconds=60)
"""A worker that was not seen for so long is gone, and its jobs should have been taken over."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The database itself."""

    version: str
    """`SQLite 3.45.1`, `PostgreSQL 17.2`."""
    journal: str | None
    """SQLite's journal mode; None elsewhere."""
    write_trouble: str | None
    """Why it can't be written; None if it can."""
    size: int
    """Bytes that it takes up."""
    clock_ahead_s: float | None
    """The database's clock less ours; None for SQLite, which has none."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk under an SQLite store."""

    folder: Path
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs of all projects, and who works on them."""

    counts: dict[JobState, int]
    oldest_waiting_s: float | None
    """Age of the oldest job that a worker could take now; None if there is none."""
    workers: int
    """Those that were seen lately."""
    orphans: int
    """Running jobs in the name of none of them."""
    paused: tuple[str, ...]
    """Projects whose jobs wait because somebody said so."""


def condition(engine: sa.Engine, *, is_migrated: bool) -> Condition:
    """Raises StoreError or SettingsError if it can't even be read."""
    is_sqlite = engine.dialect.name == "sqlite"
    with reading(engine) as conn:
        if is_sqlite:
            version = f"SQLite {conn.exec_driver_sql('SELECT sqlite_version()').scalar_one()}"
            journal = str(conn.exec_driver_sql("PRAGMA journal_mode").scalar_one()).upper()
            pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
            size = int(pages) * int(conn.exec_driver_sql("PRAGMA page_size").scalar_one())
            ahead = None
        else:
            version = f"PostgreSQL {str(conn.exec_driver_sql('SHOW server_version').scalar_one()).split()[0]}"
            journal = None
            size = int(conn.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())
            ahead = _clock_ahead(conn)
    return Condition(version, journal, _write_trouble(engine, is_migrated), size, ahead)


def disk(engine: sa.Engine) -> Disk | None:
    """None for a database that is not a file of ours."""
    if engine.dialect.name != "sqlite" or engine.url.database is None:
        return None
    folder = Path(engine.url.database).resolve().parent
    usage = shutil.disk_usage(folder)
    return Disk(folder, usage.free, usage.total)


def queue(engine: sa.Engine) -> Queue:
    """Wants a migrated store. All times are by the database's clock."""
    with reading(engine) as conn:
        now = clock(conn)
        paused = tuple(conn.scalars(sa.select(pauses.c.project).order_by(pauses.c.project)))
        alive = [worker.id for worker in live(conn, LATELY)]
        lost = sa.or_(outbox.c.worker.is_(None), outbox.c.worker.not_in(alive))
        orphans = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.state == "running", lost)
        return Queue(
            counts=jobs.counts(conn),
            oldest_waiting_s=_oldest_waiting_s(conn, now),
            workers=len(alive),
            orphans=int(conn.scalar(orphans) or 0),
            paused=paused,
        )


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is not over, of all projects: for metrics, and so without a look at what is."""

    counts: dict[JobState, int]
    """For `queued`, `running` and `paused`."""
    oldest_waiting_s: float | None
    """As in `Queue`."""
    workers: int


def backlog(conn: sa.Connection) -> Backlog:
    """By the database's clock."""
    now = clock(conn)
    unfinished: tuple[JobState, ...] = ("queued", "running", "paused")
    query = sa.select(outbox.c.state, sa.func.count().label("n")).where(outbox.c.state.in_(unfinished))
    found = {row.state: row.n for row in conn.execute(query.group_by(outbox.c.state))}
    counts = {state: found.get(state, 0) for state in unfinished}
    return Backlog(counts, _oldest_waiting_s(conn, now), len(live(conn, LATELY)))


def _oldest_waiting_s(conn: sa.Connection, now: datetime) -> float | None:
    oldest = conn.scalar(sa.select(sa.func.min(outbox.c.created_at)).where(*jobs.ready(now)))
    return None if oldest is None else (now - oldest).total_seconds()


def _clock_ahead(conn: sa.Connection) -> float:
    """Taken in the middle of the question, so that the way there and back does not count."""
    started, asked_at = time.perf_counter(), datetime.now(UTC)
    theirs: datetime = conn.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    half = (time.perf_counter() - started) / 2
    return (theirs - asked_at).total_seconds() - half


def _write_trouble(engine: sa.Engine, is_migrated: bool) -> str | None:
    """Take the write lock and, where there are tables, the right to change one; then roll back."""
    try:
        with engine.connect() as conn, conn.begin() as transaction:
            if is_migrated:
                conn.execute(sa.update(projects).values(project=projects.c.project).where(sa.false()))
            elif engine.dialect.name == "postgresql":
                conn.exec_driver_sql("CREATE TABLE spex_doctor_was_here (n int)")
            transaction.rollback()
    except sa.exc.SQLAlchemyError as error:
        return str(getattr(error, "orig", None) or error).strip()
    return None
