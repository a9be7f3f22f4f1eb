"""Heartbeats: which workers live, by the database's clock.

    with engine.begin() as conn:
        beat(conn, worker, concurrency=2)      every few seconds
        ids = live(conn, timedelta(seconds=20))

A worker beats before it takes its first job, so that a job in the name of a worker without a fresh
heartbeat is always one whose worker is gone.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from spex_proxy.store.rows import clock, insert_new
from spex_proxy.store.tables import workers

_REAPER_LOCK = 0x53504557
"""Key of the PostgreSQL advisory lock under which one worker at a time looks after the dead: SPEW."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process that works on jobs, or did."""

    id: str
    host: str
    pid: int
    concurrency: int
    """Jobs that it runs at once."""
    started_at: datetime
    seen_at: datetime


def beat(conn: sa.Connection, worker: str, *, concurrency: int) -> None:
    """This process lives, under this name."""
    now = clock(conn)
    if conn.execute(sa.update(workers).where(workers.c.id == worker).values(seen_at=now)).rowcount == 0:
        place = {"host": socket.gethostname(), "pid": os.getpid(), "concurrency": concurrency}
        insert_new(conn, workers, {"id": worker, "started_at": now, "seen_at": now} | place)


def live(conn: sa.Connection, ttl: timedelta) -> tuple[Worker, ...]:
    """Those that were seen within `ttl`."""
    query = sa.select(workers).where(workers.c.seen_at >= clock(conn) - ttl).order_by(workers.c.started_at)
    return tuple(Worker(**row._mapping) for row in conn.execute(query))


def leave(conn: sa.Connection, worker: str) -> None:
    """It has stopped, and handed back what it had."""
    conn.execute(sa.delete(workers).where(workers.c.id == worker))


def forget_dead(conn: sa.Connection, older_than: timedelta) -> int:
    """Delete heartbeats that nobody will ask for any more; returns how many."""
    return conn.execute(sa.delete(workers).where(workers.c.seen_at < clock(conn) - older_than)).rowcount


def alone(conn: sa.Connection) -> bool:
    """Whether this transaction is the only one that looks after the dead now. The others need not wait."""
    if conn.dialect.name != "postgresql":
        return True
    return bool(conn.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_REAPER_LOCK))))
