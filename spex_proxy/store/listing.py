"""Lists of exchanges: filters, newest first, page by page.

A page ends with a cursor, not with a number of rows to skip: what arrives meanwhile moves nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.query import Query, State
from spex_proxy.store import codec, search
from spex_proxy.store.fitting import (
    MOST_SEEN,
    between,
    flagged,
    has_term,
    not_older,
    of_exchange,
    of_explanation,
    older,
    reaches,
    refuse_broad,
    unindexed,
)
from spex_proxy.store.tables import contents, exchanges, explanations, flags, outbox

LIVE: tuple[State, ...] = ("queued", "running")
"""States that change by themselves."""

ANSWER_SHOWN = 160
"""Characters of an answer in a list."""
MOST_HITS = 500
"""Exchanges that one page takes from an index of words or marks."""
MOST_MODELS = 200

FOUND, JOB = explanations.alias("found"), outbox.alias("job")
"""The newest explanation and the newest job of an exchange."""
STATE = sa.case(
    (JOB.c.state.in_((*LIVE, "paused")), JOB.c.state),
    (FOUND.c.verdict.is_not(None), FOUND.c.verdict),
    (JOB.c.state.in_(("failed", "cancelled")), JOB.c.state),
    else_="captured",
)
Place = tuple[datetime, str]
"""Of a list: a time, and the id that stands there."""


_SHOWN = ("kind", "trace_id", "streamed", "duration_s", "prompt_tokens", "output_tokens", "finish_reason")


@dataclass(frozen=True, slots=True)
class Row:
    """One exchange and what became of it."""

    exchange_id: str
    upstream_id: str | None
    received_at: datetime
    model: str
    state: State
    reason: str | None
    """Why the newest job failed, or will be tried again."""
    job_id: str | None
    """The newest job."""
    explanation_id: str | None
    """The newest explanation."""
    verdict: str | None
    r2: float | None
    r2_low: float | None
    r2_high: float | None
    answer: str
    """The answer's first characters on one line."""
    is_erased: bool
    kind: str
    trace_id: str | None
    streamed: bool
    duration_s: float
    prompt_tokens: int | None
    output_tokens: int | None
    finish_reason: str | None
    job_state: str | None
    r2_so_far: float | None
    """Of what the newest job has answered, until it has an explanation."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and where the next ones begin."""

    rows: tuple[Row, ...]
    next_cursor: str | None
    """None on the last page."""


def list_exchanges(
    conn: sa.Connection,
    project: str,
    query: Query | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
    with_answers: bool = True,
) -> Page:
    """Newest first, at most `limit`. Without answers no content is read: `answer` is empty, `is_erased` False.

    A page may be short before the list ends (fitting.MOST_SEEN). Raises ValueError for a cursor that is none of
    ours, or a text without a word; TooBroad.
    """
    query = query or Query()
    refuse_broad(query, "exchanges")
    place = None if cursor is None else decode_cursor(cursor)
    driver = next((name for name in ("text", "user", "tag") if getattr(query, name) is not None), None)
    if driver is None:
        wanted, reached = _walk(conn, project, query, place)
    else:
        wanted, reached = _hits(conn, project, query, driver, place)
    listed = _query(project).where(*wanted, *_fits(conn, project, query, driver))
    if driver == "text":  # in its index's order, which tells exchanges of one microsecond apart in its own way
        listed = listed.order_by(None).order_by(search.number_of(exchanges.c.id, project).desc())
    elif driver is not None:
        listed = listed.order_by(None).order_by(unindexed(exchanges.c.received_at).desc(), exchanges.c.id.desc())
    found = conn.execute(listed.limit(limit + 1)).all()
    rows = _rows(conn, project, found[:limit], with_answers)
    if len(found) > limit:
        return Page(rows, encode_cursor(rows[-1].received_at, rows[-1].exchange_id))
    return Page(rows, encode_cursor(*reached) if reached else None)


def _walk(conn: sa.Connection, project: str, query: Query, place: Place | None) -> tuple[list[Any], Place | None]:
    """Conditions that an index of `exchanges` by time can follow, and where this page must end, if it must."""
    at, key = exchanges.c.received_at, exchanges.c.id
    wanted = [exchanges.c.project == project, *between(query, at)]
    wanted += [] if query.model is None else [exchanges.c.model == query.model]
    wanted += [] if query.rule is None else [exchanges.c.rule == query.rule]
    wanted += [] if place is None else older(at, key, place)
    if not query.said().keys() - {"since", "until", "model", "rule"}:
        return wanted, None
    last = reaches(conn, sa.select(at, key).where(*wanted).order_by(at.desc(), key.desc()), MOST_SEEN)
    if last is None:
        return wanted, None
    return [*wanted, *not_older(at, key, (last[0], last[1]))], (last[0], last[1])


def _hits(
    conn: sa.Connection, project: str, query: Query, driver: str, place: Place | None
) -> tuple[list[Any], Place | None]:
    """The newest exchanges that another index leads to; behind the last one the next page begins."""
    look: Any = {"since": query.since, "until": query.until, "before": place, "limit": MOST_HITS}
    if driver == "text":
        ids = search.saying(conn, project, str(query.text), **look)
    else:
        ids = [found[0] for found in search.marked(conn, project, driver, getattr(query, driver), **look)]
    wanted = [exchanges.c.project == project, exchanges.c.id.in_(ids)]
    wanted += between(query, unindexed(exchanges.c.received_at))
    wanted += [] if query.model is None else [unindexed(exchanges.c.model) == query.model]
    wanted += [] if query.rule is None else [unindexed(exchanges.c.rule) == query.rule]
    if len(ids) < MOST_HITS:
        return wanted, None
    last = sa.select(exchanges.c.received_at).where(exchanges.c.project == project, exchanges.c.id == ids[-1])
    return wanted, (conn.execute(last).scalar_one(), ids[-1])


def _fits(conn: sa.Connection, project: str, query: Query, driver: str | None) -> list[Any]:
    """What is tried on each row."""
    wanted = of_exchange(conn, project, query, exchanges.c.id, driven_by=driver)
    wanted += of_explanation(query, FOUND) + has_term(project, query, FOUND)
    wanted += flagged(project, query, flags.c.exchange_id == exchanges.c.id)
    return [*wanted, STATE.in_(query.state)] if query.state else wanted


def one_exchange(conn: sa.Connection, project: str, exchange_id: str) -> Row:
    """The line of one exchange. Raises NotFound."""
    row = conn.execute(_query(project).where(exchanges.c.id == exchange_id)).first()
    if row is None:
        raise NotFound(f"there is no exchange {exchange_id!r} in project {project!r}")
    (shown,) = _rows(conn, project, [row], with_answers=True)
    return shown


def models(conn: sa.Connection, project: str) -> tuple[str, ...]:
    """The models that were asked, by name: what there is to choose from; the first MOST_MODELS. Each is one look into
    an index, while DISTINCT reads all of it."""
    name, found = exchanges.c.model, list[str]()
    query = sa.select(name).where(exchanges.c.project == project).order_by(name).limit(1)
    while len(found) < MOST_MODELS:
        following = conn.scalar(query.where(name > found[-1]) if found else query)
        if following is None:
            break
        found.append(following)
    return tuple(found)


def encode_cursor(moment: datetime, last: str) -> str:
    """Where a page ended, as one word for a URL."""
    return base64.urlsafe_b64encode(f"{moment.isoformat()} {last}".encode()).decode("ascii").rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Raises ValueError."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        moment, last = text.split(" ", 1)
        at = datetime.fromisoformat(moment)
        if at.tzinfo is None:
            raise ValueError("a time without a zone")
        return at.astimezone(UTC), last
    except (ValueError, OverflowError):
        raise ValueError(f"{cursor[:40]!r} is no cursor of a list; leave it out to begin at the newest") from None


def _newest(table: sa.Table, alias: sa.FromClause) -> sa.ColumnElement[bool]:
    """`alias` is the newest row of `table` that belongs to the exchange: one look into an index."""
    other = table.alias()
    only = [other.c.kind == "explain"] if "kind" in other.c else []
    newest = (
        sa.select(other.c.id)
        .where(other.c.project == exchanges.c.project, other.c.exchange_id == exchanges.c.id, *only)
        .order_by(other.c.created_at.desc(), other.c.id.desc())
        .limit(1)
        .correlate(exchanges)
        .scalar_subquery()
    )
    return sa.and_(alias.c.project == exchanges.c.project, alias.c.id == newest)


def _query(project: str) -> sa.Select[Any]:
    return (
        sa.select(
            exchanges.c.id.label("exchange_id"),
            exchanges.c.upstream_id,
            exchanges.c.received_at,
            exchanges.c.model,
            STATE.label("state"),
            JOB.c.reason,
            JOB.c.id.label("job_id"),
            FOUND.c.id.label("explanation_id"),
            FOUND.c.verdict,
            FOUND.c.r2,
            FOUND.c.r2_low,
            FOUND.c.r2_high,
            *(exchanges.c[name] for name in _SHOWN),
            JOB.c.state.label("job_state"),
            JOB.c.r2_so_far,
        )
        .select_from(exchanges.outerjoin(FOUND, _newest(explanations, FOUND)).outerjoin(JOB, _newest(outbox, JOB)))
        .where(exchanges.c.project == project)
        .order_by(exchanges.c.received_at.desc(), exchanges.c.id.desc())
    )


def _rows(conn: sa.Connection, project: str, found: Sequence[Any], with_answers: bool) -> tuple[Row, ...]:
    answers = _answers(conn, project, [row.exchange_id for row in found]) if with_answers else {}
    shown = ((row, answers.get(row.exchange_id, "")) for row in found)
    return tuple(Row(**row._mapping, answer=answer or "", is_erased=answer is None) for row, answer in shown)


def _answers(conn: sa.Connection, project: str, ids: Sequence[str]) -> dict[str, str | None]:
    """Exchange -> the beginning of its answer; None if it was erased.

    Unpacked for each list anew: a stored preview would be content in a second place, to be erased there too, and
    a page of 50 prompts of 20 kB unpacks in 15 ms.
    """
    query = sa.select(contents.c.exchange_id, contents.c.blob).where(
        contents.c.project == project, contents.c.exchange_id.in_(ids), contents.c.part == "exchange"
    )
    return {row.exchange_id: None if row.blob is None else _beginning(row) for row in conn.execute(query)}


def _beginning(row: Any) -> str:
    """Raises VerificationFailed for a blob that is damaged."""
    answer: str = codec.decode_content(row.blob, f"content of {row.exchange_id}")["output_text"]
    return " ".join(answer[: 8 * ANSWER_SHOWN].split())[:ANSWER_SHOWN]
