"""Lists of exchanges: filters, newest first, page by page.

A page ends with a cursor, not with a number of rows to skip: what arrives meanwhile moves nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.store import codec
from spex_proxy.store.tables import contents, exchanges, explanations, outbox

State = Literal[
    "captured", "queued", "running", "paused", "failed", "cancelled", "reliable", "unreliable", "nothing_to_explain"
]
"""A waiting or running job says more than what was found before it; then the newest explanation's verdict."""

STATES: tuple[State, ...] = get_args(State)
LIVE: tuple[State, ...] = ("queued", "running")
"""States that change by themselves."""

ANSWER_SHOWN = 160
"""Characters of an answer in a list."""


_SHOWN = ("kind", "trace_id", "streamed", "duration_s", "prompt_tokens", "output_tokens", "finish_reason")


@dataclass(frozen=True, slots=True)
class Filters:
    """What to list; None or empty leaves all in."""

    states: tuple[State, ...] = ()
    model: str | None = None
    since: datetime | None = None
    """Received at this moment or later."""
    until: datetime | None = None
    """Received before this moment."""


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
    filters: Filters | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
    with_answers: bool = True,
) -> Page:
    """Newest first, at most `limit`. Without answers no content is read: `answer` is empty, `is_erased` False.

    Raises ValueError for a cursor that is none of ours.
    """
    query = _query(project, filters or Filters())
    if cursor is not None:
        moment, last = decode_cursor(cursor)
        older = sa.and_(exchanges.c.received_at == moment, exchanges.c.id < last)
        # the first condition says nothing new, but it alone is a range of the index
        query = query.where(exchanges.c.received_at <= moment, sa.or_(exchanges.c.received_at < moment, older))
    found = conn.execute(query.limit(limit + 1)).all()
    rows = _rows(conn, project, found[:limit], with_answers)
    more = len(found) > limit
    return Page(rows, encode_cursor(rows[-1].received_at, rows[-1].exchange_id) if more else None)


def one_exchange(conn: sa.Connection, project: str, exchange_id: str) -> Row:
    """The line of one exchange. Raises NotFound."""
    row = conn.execute(_query(project, Filters()).where(exchanges.c.id == exchange_id)).first()
    if row is None:
        raise NotFound(f"there is no exchange {exchange_id!r} in project {project!r}")
    (shown,) = _rows(conn, project, [row], with_answers=True)
    return shown


def models(conn: sa.Connection, project: str) -> tuple[str, ...]:
    """The models that were asked, by name: what there is to choose from."""
    query = sa.select(exchanges.c.model).where(exchanges.c.project == project).distinct()
    return tuple(conn.scalars(query.order_by(exchanges.c.model)))


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


def _query(project: str, filters: Filters) -> sa.Select[Any]:
    found, job = explanations.alias("found"), outbox.alias("job")
    state = sa.case(
        (job.c.state.in_((*LIVE, "paused")), job.c.state),
        (found.c.verdict.is_not(None), found.c.verdict),
        (job.c.state.in_(("failed", "cancelled")), job.c.state),
        else_="captured",
    )
    query = (
        sa.select(
            exchanges.c.id.label("exchange_id"),
            exchanges.c.upstream_id,
            exchanges.c.received_at,
            exchanges.c.model,
            state.label("state"),
            job.c.reason,
            job.c.id.label("job_id"),
            found.c.id.label("explanation_id"),
            found.c.verdict,
            found.c.r2,
            found.c.r2_low,
            found.c.r2_high,
            *(exchanges.c[name] for name in _SHOWN),
            job.c.state.label("job_state"),
            job.c.r2_so_far,
        )
        .select_from(exchanges.outerjoin(found, _newest(explanations, found)).outerjoin(job, _newest(outbox, job)))
        .where(exchanges.c.project == project)
        .order_by(exchanges.c.received_at.desc(), exchanges.c.id.desc())
    )
    if filters.states:
        query = query.where(state.in_(filters.states))
    if filters.model is not None:
        query = query.where(exchanges.c.model == filters.model)
    if filters.since is not None:
        query = query.where(exchanges.c.received_at >= filters.since)
    if filters.until is not None:
        query = query.where(exchanges.c.received_at < filters.until)
    return query


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
