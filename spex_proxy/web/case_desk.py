"""What the review pages need from the store, read in one consistent state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.review import Case
from spex_proxy.store import cases
from spex_proxy.store.cases import CaseFilters, QueueLine
from spex_proxy.store.listing import Row, one_exchange
from spex_proxy.store.rows import clock
from spex_proxy.store.tables import explanations
from spex_proxy.study.again import RetestSheet
from spex_proxy.study.report import CaseSheet, Report, load_report, load_retests
from spex_proxy.web.desk import Desk, load_desk

LEVELS = ("message", "document", "auto", "sentence", "word")
"""Segmenters of ours, from coarse to fine."""
OFFERED = ("message", "sentence", "word")
"""Those that a reviewer may ask for where there is no explanation yet."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A case in the list, with what it is about."""

    case: Case
    row: Row
    is_free: bool
    """True if nobody holds it, or the claim has expired."""


@dataclass(frozen=True, slots=True)
class QueuePage:
    """The review queue, or a part of it."""

    rows: tuple[QueueRow, ...]
    next_after: tuple[int, datetime, str] | None
    queues: tuple[QueueLine, ...]


@dataclass(frozen=True, slots=True)
class Level:
    """One size of segments: message, sentence, word."""

    segmenter: str
    explanation_id: str | None
    """The newest explanation at this level; None if there is none yet."""
    verdict: str
    is_shown: bool


@dataclass(frozen=True, slots=True)
class CaseDesk:
    """One case: all of its page."""

    told: CaseSheet
    is_free: bool
    desk: Desk
    report: Report | None
    """None while there is no explanation."""
    levels: tuple[Level, ...]

    @property
    def case(self) -> Case:
        return self.told.case

    @property
    def retests(self) -> tuple[RetestSheet, ...]:
        return self.report.retests if self.report else ()


def load_queue(
    conn: sa.Connection, filters: CaseFilters, after: tuple[int, datetime, str] | None, limit: int, project: str
) -> QueuePage:
    """A page of the queue, the most urgent first."""
    page, now = cases.list_cases(conn, project, filters, after=after, limit=limit), clock(conn)
    rows = tuple(
        QueueRow(case, one_exchange(conn, project, case.exchange_id), _is_free(case, now)) for case in page.cases
    )
    return QueuePage(rows, page.next_after, cases.queues(conn, project))


def load_case_desk(conn: sa.Connection, case_id: str, level: str | None, project: str) -> CaseDesk:
    """Everything for a case's page. `level`: the explanation to show, instead of the one that raised the case or
    the newest. Raises NotFound."""
    case = cases.load_case(conn, cases.find_case(conn, case_id, project=project), project=project)
    chosen = level or case.explanation_id or case.exchange_id
    desk = load_desk(conn, chosen, project)
    if desk.exchange is None or desk.exchange.row.exchange_id != case.exchange_id:
        raise NotFound(f"{chosen} does not belong to case {case.id}")
    shown = desk.sheet.explanation.id if desk.sheet else None
    return CaseDesk(
        told=CaseSheet(case, cases.history(conn, case.id, project=project)),
        is_free=_is_free(case, clock(conn)),
        desk=desk,
        report=load_report(conn, shown, project) if shown else None,
        levels=_levels(conn, case.exchange_id, shown, project),
    )


def load_retest_cards(conn: sa.Connection, any_id: str, project: str) -> tuple[RetestSheet, ...]:
    """The re-tests of the explanation behind any id, newest first. Raises NotFound."""
    sheet = load_desk(conn, any_id, project).sheet
    return load_retests(conn, sheet, project) if sheet is not None else ()


def _is_free(case: Case, now: datetime) -> bool:
    return case.state == "open" or (case.state == "claimed" and case.held_until is not None and case.held_until <= now)


def _levels(conn: sa.Connection, exchange_id: str, shown: str | None, project: str) -> tuple[Level, ...]:
    query = (
        sa.select(explanations.c.id, explanations.c.recipe, explanations.c.verdict)
        .where(explanations.c.project == project, explanations.c.exchange_id == exchange_id)
        .order_by(explanations.c.created_at, explanations.c.id)
    )
    newest: dict[str, Level] = {name: Level(name, None, "", is_shown=False) for name in OFFERED}
    for row in conn.execute(query):
        name = str(row.recipe.get("segmenter"))
        known = newest.get(name)
        if known is None or not known.is_shown:
            newest[name] = Level(name, row.id, row.verdict, is_shown=row.id == shown)
    order = {name: place for place, name in enumerate(LEVELS)}
    return tuple(sorted(newest.values(), key=lambda level: (order.get(level.segmenter, len(order)), level.segmenter)))
