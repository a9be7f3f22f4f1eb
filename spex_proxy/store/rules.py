"""Versions of the sampling rules, and how much of their caps is used."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from spex_proxy.facts.rules import RuleBook, Window
from spex_proxy.store.columns import DEFAULT_PROJECT, utc_now
from spex_proxy.store.rows import get_or_create_project, insert_new
from spex_proxy.store.tables import rule_books, rule_uses

_KEPT = {"minute": timedelta(hours=1), "day": timedelta(days=400)}
"""How long counts are kept: no cap looks back further; days are kept for those who weigh samples."""


def save_book(conn: sa.Connection, book: RuleBook, *, project: str = DEFAULT_PROJECT) -> bool:
    """Keep a version of the rules; False if it is known."""
    get_or_create_project(conn, project)
    row = {
        "project": project,
        "digest": book.digest,
        "text": book.text,
        "settings": dataclasses.asdict(book.rules[-1]),
        "loaded_at": utc_now(),
    }
    return insert_new(conn, rule_books, row)


def take(
    conn: sa.Connection, rule: str, window: Window, at: datetime, most: int, *, project: str = DEFAULT_PROJECT
) -> bool:
    """Count one more job of a rule in the minute or day (UTC) of `at`; False, counting nothing, if there were `most`.

    One statement, so two processes never take the last one both: on PostgreSQL the second waits for the
    first one's transaction.
    """
    if most < 1:
        return False
    get_or_create_project(conn, project)
    starts_at = at.replace(second=0, microsecond=0) if window == "minute" else _midnight(at)
    insert = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    row = {"project": project, "rule": rule, "period": window, "starts_at": starts_at}
    statement = (
        insert(rule_uses)
        .values(**row, used=1)
        .on_conflict_do_update(
            index_elements=list(row), set_={"used": rule_uses.c.used + 1}, where=rule_uses.c.used < most
        )
        .returning(rule_uses.c.used)
    )
    used = conn.execute(statement).scalar()
    if used == 1:  # a new window: what is long over goes
        old = [rule_uses.c.project == project, rule_uses.c.rule == rule, rule_uses.c.period == window]
        conn.execute(sa.delete(rule_uses).where(*old, rule_uses.c.starts_at < starts_at - _KEPT[window]))
    return used is not None


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)
