"""A query's filters as conditions in SQL, and how far one page may look.

A list walks one index, newest first. Filters that no index knows are tried on each row that it passes, at most
MOST_SEEN rows for one page: a page of a rare thing is short, not slow, and its cursor goes on from there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.errors import TooBroad
from spex_proxy.facts.origins import bit
from spex_proxy.facts.query import Noun, Query, too_broad
from spex_proxy.store import search
from spex_proxy.store.tables import cases, exchanges, flags, interactions

MOST_SEEN = 2000
"""Rows that one page looks at."""
MOST_READ = 500
"""Rows that one page looks at where words are looked for in each."""


def refuse_broad(query: Query, noun: Noun) -> None:
    """Raises TooBroad."""
    reason = too_broad(query, noun)
    if reason is not None:
        raise TooBroad(reason)


def between(query: Query, at: sa.ColumnElement[datetime]) -> list[sa.ColumnElement[bool]]:
    """The query's time range."""
    low = [] if query.since is None else [at >= query.since]
    return low if query.until is None else [*low, at < query.until]


def unindexed(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The same value, but no index is walked for it: for rows that were chosen by id, which a planner may not know to
    be few."""
    return sa.func.coalesce(column, column)


def older(at: sa.ColumnElement[datetime], key: sa.ColumnElement[str], than: tuple[datetime, str]) -> list[Any]:
    """Behind a place of a list."""
    moment, last = than
    # the first condition says nothing new, but it alone is a range of the index
    return [at <= moment, sa.or_(at < moment, sa.and_(at == moment, key < last))]


def not_older(at: sa.ColumnElement[datetime], key: sa.ColumnElement[str], than: tuple[datetime, str]) -> list[Any]:
    """At a place of a list, or before it."""
    moment, last = than
    return [at >= moment, sa.or_(at > moment, sa.and_(at == moment, key >= last))]


def of_exchange(
    conn: sa.Connection, project: str, query: Query, exchange_id: sa.ColumnElement[Any], *, driven_by: str | None = None
) -> list[sa.ColumnElement[bool]]:
    """What is said of an exchange beside model and rule. `driven_by`: the filter that the index was chosen for."""
    found: list[sa.ColumnElement[bool]] = []
    if query.user is not None and driven_by != "user":
        found.append(search.is_marked(exchange_id, project, "user", query.user))
    if query.tag is not None and driven_by != "tag":
        found.append(search.is_marked(exchange_id, project, "tag", query.tag))
    if query.text is not None and driven_by != "text":
        found.append(search.says(conn, exchange_id, project, query.text))
    if query.review is not None:
        case = sa.select(cases.c.id).where(cases.c.project == project, cases.c.exchange_id == exchange_id)
        is_there = case.exists() if query.review == "none" else case.where(cases.c.state == query.review).exists()
        found.append(~is_there if query.review == "none" else is_there)
    return found


def asked_of_model(project: str, query: Query, exchange_id: sa.ColumnElement[Any]) -> list[sa.ColumnElement[bool]]:
    """Model and rule, for lists that do not read the exchange's row."""
    if query.model is None and query.rule is None:
        return []
    own = exchanges.alias("asked_of")  # whoever joins the table itself asks about its own row
    found = sa.select(own.c.id).where(own.c.project == project, own.c.id == exchange_id)
    if query.model is not None:
        found = found.where(own.c.model == query.model)
    if query.rule is not None:
        found = found.where(own.c.rule == query.rule)
    return [found.exists()]


def of_explanation(query: Query, made: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    """What is said of an explanation. `made`: `explanations`, or an alias of it."""
    found: list[sa.ColumnElement[bool]] = []
    if query.verdict:
        found.append(made.c.verdict.in_(query.verdict))
    if query.r2_min is not None:
        found.append(made.c.r2 >= query.r2_min)
    if query.r2_max is not None:
        found.append(made.c.r2 <= query.r2_max)
    return found


def flagged(project: str, query: Query, *these: sa.ColumnElement[bool]) -> list[sa.ColumnElement[bool]]:
    """It carries the flag; `these` say which flags are its own, any of them."""
    if query.flag is None:
        return []
    ours = (flags.c.project == project, flags.c.name == query.flag)
    # the offset says nothing; without it PostgreSQL would rather collect all flags of that name than look each row up
    return [sa.or_(*(sa.select(flags.c.id).where(*ours, this).offset(0).exists() for this in these))]


def of_term(query: Query) -> list[sa.ColumnElement[bool]]:
    """What is said of one term, as conditions on `interactions`."""
    column = interactions.c
    found: list[sa.ColumnElement[bool]] = []
    if query.top is not None:
        found.append(column.rank < query.top)
    if query.origin is not None:
        found.append(column.origins.op("&")(bit(query.origin)) != 0)
    if query.order is not None:
        found.append(column.size == query.order)
    if query.strength is not None:
        found.append(sa.or_(column.banzhaf >= query.strength, column.banzhaf <= -query.strength))
    return found


def has_term(project: str, query: Query, made: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    """The explanation has such a term."""
    if not query.seeks_terms:
        return []
    term = sa.select(interactions.c.rank).where(
        interactions.c.project == project, interactions.c.explanation_id == made.c.id, *of_term(query)
    )
    return [term.exists()]


def reaches(conn: sa.Connection, walk: sa.Select[Any], most: int) -> tuple[Any, ...] | None:
    """The last row that a page may look at, of a walk over an index; None if there are fewer."""
    row = conn.execute(walk.offset(most - 1).limit(1)).first()
    return None if row is None else tuple(row)
