"""Statements that every table needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from spex_proxy.store.columns import UtcDateTime, utc_now
from spex_proxy.store.tables import projects


def insert_new(conn: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Insert unless any unique key is taken; whether it was inserted.

    Two writers of the same row never fail: the second waits for the first, then learns that it came late.
    """
    statement = _insert_unless_taken(conn.dialect.name, table)
    result = conn.execute(statement, row, execution_options={"preserve_rowcount": True})
    return result.rowcount == 1


def insert_all_new(conn: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], key: str) -> set[Any]:
    """`insert_new` for many rows with the same columns: `key` of those that were inserted.

    A few statements for all of them, so that one row costs a tenth of a statement of its own.
    """
    if not rows:
        return set()
    returning = _insert_unless_taken(conn.dialect.name, table).returning(table.c[key])
    return set(conn.execute(returning, rows).scalars())


@cache  # a statement is made once: making one costs as much as running it
def _insert_unless_taken(dialect: str, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def get_or_create_project(conn: sa.Connection, project: str) -> str:
    """Every row belongs to a project that exists. Returns its name."""
    known = conn.execute(sa.select(projects.c.project).where(projects.c.project == project)).first()
    if known is None:
        insert_new(conn, projects, {"project": project, "created_at": utc_now()})
    return project


def clock(conn: sa.Connection) -> datetime:
    """The database's time: the one that machines with clocks of their own agree on."""
    if conn.dialect.name == "postgresql":
        now: datetime | None = conn.scalar(sa.select(sa.func.clock_timestamp(type_=UtcDateTime())))
        assert now is not None, "clock_timestamp() is never NULL"
        return now
    return utc_now()


STOPPED_SECONDS = 15
"""A process that was stopped (SIGSTOP, a frozen container) inside a transaction loses it after so long, and
the locks that others wait for with it. Only database calls lie between our statements, milliseconds."""


def impatiently(conn: sa.Connection) -> None:
    """Call it before the first lock of a transaction. SQLite has one worker, whom nobody waits for."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{STOPPED_SECONDS}s'")
