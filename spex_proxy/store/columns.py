"""What the tables' columns are made of: types that mean the same on both databases, and columns that recur."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

_NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

metadata = sa.MetaData(naming_convention=_NAMING)

DEFAULT_PROJECT = "default"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Text(sa.types.TypeDecorator[str]):
    """Text for people and for searching. Code points that a database refuses (NUL, half a surrogate pair;
    both come in through JSON) are replaced by U+FFFD: a strange error message must not be what keeps a
    failed job from being recorded. Content is kept exactly, but it is packed."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> str | None:
        return None if value is None else _UNSTORABLE.sub("\ufffd", value)


class Id(Text):
    """Compared by byte on both databases, so that a prefix is a range of the index (lookup.find)."""

    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[str]:
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(sa.String(collation=collation))


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A moment. Naive datetimes are refused; what comes back is always in UTC.

    SQLite keeps text of fixed width without a zone, which sorts as time does.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the store takes no time without a zone: {value!r}")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    """This machine's clock, in UTC."""
    return datetime.now(UTC)


def project_column() -> sa.Column[str]:
    """The tenant: first column of every key."""
    return sa.Column("project", Id, primary_key=True, nullable=False, server_default=DEFAULT_PROJECT)


def in_project() -> sa.ForeignKeyConstraint:
    """The project exists."""
    return sa.ForeignKeyConstraint(["project"], ["projects.project"])


def of(parent: str, column: str) -> sa.ForeignKeyConstraint:
    """(project, column) names a row of `parent`; no check where `column` is NULL."""
    return sa.ForeignKeyConstraint(["project", column], [f"{parent}.project", f"{parent}.id"])


def required(name: str, kind: Any) -> sa.Column[Any]:
    """NOT NULL."""
    return sa.Column(name, kind, nullable=False)


def counter(name: str) -> sa.Column[int]:
    """From 0."""
    return sa.Column(name, sa.Integer(), nullable=False, server_default="0")
