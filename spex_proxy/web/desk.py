"""What a page about one exchange needs from the store, read in one consistent state."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from spex_proxy.facts.explanation import Explanation
from spex_proxy.store.browse import ExchangeStory, exchange_story
from spex_proxy.store.browse_jobs import job_progress
from spex_proxy.store.lookup import find
from spex_proxy.store.outbox import Job, jobs_of_exchange
from spex_proxy.store.tables import evidence_blocks
from spex_proxy.store.tables import games as played
from spex_proxy.study.painted import MessageSheet, unexplained
from spex_proxy.study.sheet import Sheet
from spex_proxy.study.stored import load_sheet

ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Making:
    """A job, and how far it is."""

    job: Job
    position: int | None
    """Place in the queue; None unless it waits there."""
    masks: int
    tokens: int
    """Prompt tokens that were sent for this exchange so far, earlier jobs' included."""
    r2: float | None


@dataclass(frozen=True, slots=True)
class Desk:
    """One exchange, one of its explanations, and its newest job."""

    exchange: ExchangeStory | None
    """None for an explanation that belongs to no exchange."""
    sheet: Sheet | None
    """None if there is no explanation."""
    messages: tuple[MessageSheet, ...]
    """Without colours: what is shown while there is no explanation."""
    progress: Making | None
    """Of the newest job, if it says more than the explanation that is shown."""
    damage: str
    """What is wrong with the stored evidence; empty if nothing is."""

    @property
    def title(self) -> str:
        """The id that the page goes by."""
        if self.exchange is not None:
            return self.exchange.row.exchange_id
        return self.sheet.explanation.id if self.sheet is not None else ""


def load_desk(conn: sa.Connection, any_id: str, project: str) -> Desk:
    """Everything for the page behind any id. Raises NotFound."""
    found = find(conn, any_id, project)
    exchange = exchange_story(conn, found.exchange_id, project) if found.exchange_id else None
    if not found.explanation_ids:
        content = exchange.exchange if exchange else None
        return Desk(exchange, None, unexplained(content), _progress(conn, exchange, None, project), "")
    sheet, damage = load_sheet(conn, found.explanation_ids[0], project)
    return Desk(exchange, sheet, (), _progress(conn, exchange, sheet.explanation, project), damage)


def load_progress(conn: sa.Connection, any_id: str, project: str) -> Making | None:
    """The newest job of an exchange, and how far it is. Raises NotFound."""
    exchange_id = find(conn, any_id, project).exchange_id
    newest = jobs_of_exchange(conn, exchange_id, project=project) if exchange_id else ()
    return _making(conn, newest[0], project) if newest else None


def _making(conn: sa.Connection, job: Job, project: str) -> Making:
    found = job_progress(conn, job.id, project=project)
    return Making(found.job, found.position, found.masks, _tokens(conn, job.exchange_id, project), found.r2)


def _tokens(conn: sa.Connection, exchange_id: str, project: str) -> int:
    of_game = sa.and_(evidence_blocks.c.project == played.c.project, evidence_blocks.c.game_id == played.c.id)
    query = (
        sa.select(sa.func.coalesce(sa.func.sum(evidence_blocks.c.prompt_tokens), 0))
        .select_from(played.join(evidence_blocks, of_game))
        .where(played.c.project == project, played.c.exchange_id == exchange_id)
    )
    return int(conn.execute(query).scalar_one())


def _progress(
    conn: sa.Connection, exchange: ExchangeStory | None, shown: Explanation | None, project: str
) -> Making | None:
    if exchange is None or not exchange.jobs:
        return None
    job = exchange.jobs[0]
    if job.state == "done" or (shown is not None and job.state in ENDED and job.created_at < shown.created_at):
        return None
    return _making(conn, job, project)
