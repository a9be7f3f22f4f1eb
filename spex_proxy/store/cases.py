"""Cases for review: a queue, a claim, a verdict, and a history in which nothing is overwritten."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.review import Case, CaseEvent, CaseState, Refusal, Step, Wish, opened, take
from spex_proxy.store.columns import DEFAULT_PROJECT, utc_now
from spex_proxy.store.rows import clock, impatiently, insert_new
from spex_proxy.store.tables import case_events, cases

USUAL_QUEUE = "review"
USUAL_HOLD = timedelta(minutes=15)
"""How long a claim holds."""
_COLUMNS = [cases.c[field.name] for field in dataclasses.fields(Case)]


@dataclass(frozen=True, slots=True)
class CaseFilters:
    """What to list; None or empty leaves all in."""

    queue: str | None = None
    states: tuple[CaseState, ...] = ()
    holder: str | None = None
    label: str | None = None
    exchange_id: str | None = None


@dataclass(frozen=True, slots=True)
class CasePage:
    """Some cases, the most urgent first, and where the next ones begin."""

    cases: tuple[Case, ...]
    next_after: tuple[int, datetime, str] | None
    """(priority, created_at, id) of the last one; None on the last page."""


@dataclass(frozen=True, slots=True)
class QueueLine:
    """How one queue stands."""

    queue: str
    open: int
    claimed: int
    done: int
    oldest_open: datetime | None


def open_case(
    conn: sa.Connection,
    exchange_id: str,
    *,
    why: str,
    who: str,
    queue: str = USUAL_QUEUE,
    note: str | None = None,
    priority: int = 2,
    explanation_id: str | None = None,
    project: str = DEFAULT_PROJECT,
) -> Case:
    """Put an exchange into a queue. One that is there already stays as it is, done or not: the case is returned,
    and `reopen` is a person's decision."""
    case = Case(
        id=uuid.uuid4().hex, project=project, queue=queue, exchange_id=exchange_id, explanation_id=explanation_id,
        why=why, priority=priority, state="open", created_at=utc_now(),
    )  # fmt: skip
    step = opened(case, who, note)
    if insert_new(conn, cases, dataclasses.asdict(step.case)):
        _add_events(conn, step)
        return step.case
    there = sa.select(*_COLUMNS).where(
        cases.c.project == project, cases.c.queue == queue, cases.c.exchange_id == exchange_id
    )
    return _case(conn.execute(there).one())


def load_case(conn: sa.Connection, case_id: str, *, project: str = DEFAULT_PROJECT) -> Case:
    """Raises NotFound."""
    row = conn.execute(sa.select(*_COLUMNS).where(cases.c.project == project, cases.c.id == case_id)).first()
    if row is None:
        raise NotFound(f"there is no case {case_id!r} in project {project!r}")
    return _case(row)


def find_case(conn: sa.Connection, beginning: str, *, project: str = DEFAULT_PROJECT) -> str:
    """The id of the one case whose id begins so. Raises NotFound if there is none, or more than one."""
    query = (
        sa.select(cases.c.id)
        .where(cases.c.project == project, cases.c.id >= beginning, cases.c.id < beginning + "\x7f")
        .limit(2)
    )
    found = conn.scalars(query).all()
    if len(found) != 1:
        many = f"more than one case begins with {beginning!r}: write more of it"
        raise NotFound(many if found else f"there is no case {beginning!r} in project {project!r}")
    return str(found[0])


def history(conn: sa.Connection, case_id: str, *, project: str = DEFAULT_PROJECT) -> tuple[CaseEvent, ...]:
    """All that happened to a case, oldest first."""
    query = (
        sa.select(*(case_events.c[field.name] for field in dataclasses.fields(CaseEvent)))
        .where(case_events.c.project == project, case_events.c.case_id == case_id)
        .order_by(case_events.c.number)
    )
    return tuple(CaseEvent(**row._mapping) for row in conn.execute(query))


def act(
    conn: sa.Connection,
    case_id: str,
    wish: Wish,
    who: str,
    *,
    label: str | None = None,
    note: str | None = None,
    hold: timedelta = USUAL_HOLD,
    project: str = DEFAULT_PROJECT,
) -> Case | Refusal:
    """Do what somebody wishes with a case, by the rules of facts.review. Of two who claim one case at the same
    moment one gets it, and the other is told who. Raises NotFound."""
    impatiently(conn)
    locked = sa.select(*_COLUMNS).where(cases.c.project == project, cases.c.id == case_id).with_for_update()
    row = conn.execute(locked).first()
    if row is None:
        raise NotFound(f"there is no case {case_id!r} in project {project!r}")
    step = take(_case(row), wish, who, clock(conn), hold=hold, label=label, note=note)
    if isinstance(step, Refusal):
        return step
    changes = {name: getattr(step.case, name) for name in ("state", "holder", "held_until", "label", "closed_at")}
    conn.execute(
        sa.update(cases)
        .where(cases.c.project == project, cases.c.id == case_id)
        .values(**changes, events=step.case.events)
    )
    _add_events(conn, step)
    return step.case


def claim_next(
    conn: sa.Connection,
    who: str,
    *,
    queue: str = USUAL_QUEUE,
    hold: timedelta = USUAL_HOLD,
    project: str = DEFAULT_PROJECT,
) -> Case | None:
    """The most urgent case that nobody holds, claimed; None if there is none."""
    impatiently(conn)
    free = sa.or_(cases.c.state == "open", sa.and_(cases.c.state == "claimed", cases.c.held_until <= clock(conn)))
    query = (
        sa.select(cases.c.id)
        .where(cases.c.project == project, cases.c.queue == queue, free)
        .order_by(cases.c.priority, cases.c.created_at, cases.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # of those who ask at the same time, each gets another
    )
    case_id = conn.scalar(query)
    case = None if case_id is None else act(conn, case_id, "claim", who, hold=hold, project=project)
    return case if isinstance(case, Case) else None


def list_cases(
    conn: sa.Connection,
    project: str,
    filters: CaseFilters | None = None,
    *,
    after: tuple[int, datetime, str] | None = None,
    limit: int = 50,
) -> CasePage:
    """The most urgent first, then the oldest; at most `limit`, behind the place `after`."""
    wanted = filters or CaseFilters()
    query = sa.select(*_COLUMNS).where(cases.c.project == project, *_conditions(wanted))
    if after is not None:
        place = sa.tuple_(cases.c.priority, cases.c.created_at, cases.c.id)
        query = query.where(place > sa.tuple_(*after, types=[sa.Integer(), cases.c.created_at.type, cases.c.id.type]))
    query = query.order_by(cases.c.priority, cases.c.created_at, cases.c.id).limit(limit + 1)
    found = [_case(row) for row in conn.execute(query)]
    last = found[limit - 1] if len(found) > limit else None
    return CasePage(tuple(found[:limit]), (last.priority, last.created_at, last.id) if last else None)


def queues(conn: sa.Connection, project: str) -> tuple[QueueLine, ...]:
    """Every queue that has cases, by name."""
    is_open = cases.c.state == "open"
    query = (
        sa.select(
            cases.c.queue,
            *(sa.func.sum(sa.case((cases.c.state == state, 1), else_=0)) for state in ("open", "claimed", "done")),
            sa.func.min(sa.case((is_open, cases.c.created_at))),
        )
        .where(cases.c.project == project)
        .group_by(cases.c.queue)
        .order_by(cases.c.queue)
    )
    return tuple(QueueLine(row[0], int(row[1]), int(row[2]), int(row[3]), row[4]) for row in conn.execute(query))


def _conditions(wanted: CaseFilters) -> Sequence[sa.ColumnElement[bool]]:
    given: dict[str, Any] = {
        "queue": wanted.queue, "holder": wanted.holder, "label": wanted.label, "exchange_id": wanted.exchange_id,
    }  # fmt: skip
    found = [cases.c[name] == value for name, value in given.items() if value is not None]
    return [*found, cases.c.state.in_(wanted.states)] if wanted.states else found


def _add_events(conn: sa.Connection, step: Step) -> None:
    keys = {"project": step.case.project, "case_id": step.case.id}
    if step.events:
        conn.execute(sa.insert(case_events), [dataclasses.asdict(event) | keys for event in step.events])


def _case(row: sa.Row[Any]) -> Case:
    return Case(**row._mapping)
