"""Lists of interactions: single terms of many explanations, the newest explanation first, its strongest term first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.query import Query
from spex_proxy.store.browse_explanations import walk
from spex_proxy.store.fitting import MOST_READ, of_term, refuse_broad
from spex_proxy.store.listing import decode_cursor, encode_cursor
from spex_proxy.store.tables import explanations, interactions

MOST_EXPLANATIONS = 1000
"""Explanations whose terms one page looks at."""


_AFTER_IT = "\U0010ffff"
"""Behind an id: it comes before all that are larger than it, and after itself."""


@dataclass(frozen=True, slots=True)
class TermLine:
    """One term in a list."""

    explanation_id: str
    exchange_id: str | None
    created_at: datetime
    """Of its explanation."""
    verdict: str
    r2: float | None
    rank: int
    """0 is the strongest of its explanation."""
    players: tuple[int, ...]
    origins: int
    """Bits; facts.origins.named tells them."""
    fourier: float
    banzhaf: float
    moebius: float
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class TermLines:
    """Some lines, and where the next ones begin."""

    lines: tuple[TermLine, ...]
    next_cursor: str | None
    """None on the last page."""


_OF_EXPLANATION = ("exchange_id", "created_at", "verdict", "r2")
_COLUMNS: list[sa.ColumnElement[Any]] = [
    (explanations if name in _OF_EXPLANATION else interactions).c[name] for name in TermLine.__dataclass_fields__
]


def list_interactions(
    conn: sa.Connection, project: str, query: Query | None = None, *, cursor: str | None = None, limit: int = 50
) -> TermLines:
    """At most `limit`; `query.exchange` is an exchange's whole id.

    A page may be short before the list ends. Raises ValueError for a cursor that is none of ours, or a text
    without a word; TooBroad.
    """
    query = query or Query()
    refuse_broad(query, "interactions")
    at, key, rank = explanations.c.created_at, explanations.c.id, interactions.c.rank
    place, behind = _begin(cursor)
    most = MOST_EXPLANATIONS if query.text is None else MOST_READ
    wanted, reached = walk(conn, project, query, place, most)
    if behind is not None:
        moment, last, number = behind
        wanted += [sa.or_(at < moment, key < last, rank > number)]
    of_it = sa.and_(interactions.c.project == explanations.c.project, interactions.c.explanation_id == key)
    found = conn.execute(
        sa.select(*_COLUMNS)
        .select_from(explanations.join(interactions, of_it))
        .where(*wanted, *of_term(query))
        .order_by(at.desc(), key.desc(), rank)
        .limit(limit + 1)
    ).all()
    lines = tuple(TermLine(**{**row._mapping, "players": tuple(row.players)}) for row in found[:limit])
    if len(found) > limit:
        return TermLines(lines, encode_cursor(lines[-1].created_at, f"{lines[-1].rank} {lines[-1].explanation_id}"))
    return TermLines(lines, encode_cursor(*reached) if reached else None)


def _begin(cursor: str | None) -> tuple[tuple[datetime, str] | None, tuple[datetime, str, int] | None]:
    """A cursor ends behind an explanation, or behind one of its terms: `rank id`."""
    if cursor is None:
        return None, None
    moment, last = decode_cursor(cursor)
    rank, space, key = last.partition(" ")
    if not space:
        return (moment, last), None
    if not (rank.isascii() and rank.isdigit() and len(rank) < 4):
        raise ValueError(f"{cursor[:40]!r} is no cursor of this list; leave it out to begin at the newest")
    return (moment, key + _AFTER_IT), (moment, key, int(rank))
