"""The read side: what people look at, as plain records."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.exchange import Exchange
from spex_proxy.facts.explanation import Explanation, Summary
from spex_proxy.facts.game import Game
from spex_proxy.store import exchanges as captured
from spex_proxy.store import explanations as explained
from spex_proxy.store import games as played
from spex_proxy.store import outbox as jobs
from spex_proxy.store.listing import LIVE, Row, list_exchanges, one_exchange
from spex_proxy.store.lookup import find
from spex_proxy.store.tables import evidence_blocks, exchanges, explanations, games

ANSWER_SHOWN = 60
"""Characters of an answer in a list."""


@dataclass(frozen=True, slots=True)
class Story:
    """One explanation with what it is about."""

    explanation: Explanation
    game: Game
    exchange: Exchange | None
    """None if the content was erased."""


@dataclass(frozen=True, slots=True)
class ExchangeStory:
    """One exchange, with its content and all that became of it."""

    row: Row
    capture_probability: float
    explain_probability: float
    explain_why: str
    exchange: Exchange | None
    """None if the content was erased."""
    explanation_ids: tuple[str, ...]
    """Newest first."""
    jobs: tuple[jobs.Job, ...]
    """Newest first."""


def exchange_story(conn: sa.Connection, any_id: str, project: str) -> ExchangeStory:
    """The exchange behind any id. Raises NotFound."""
    exchange_id = find(conn, any_id, project).exchange_id
    if exchange_id is None:
        raise NotFound(f"{any_id} is an explanation that belongs to no exchange")
    draw = conn.execute(
        sa.select(exchanges.c.capture_probability, exchanges.c.explain_probability, exchanges.c.explain_why).where(
            exchanges.c.project == project, exchanges.c.id == exchange_id
        )
    ).one()
    made = (
        sa.select(explanations.c.id)
        .where(explanations.c.project == project, explanations.c.exchange_id == exchange_id)
        .order_by(explanations.c.created_at.desc(), explanations.c.id.desc())
    )
    return ExchangeStory(
        one_exchange(conn, project, exchange_id),
        *draw,
        exchange=_content(conn, exchange_id, project),
        explanation_ids=tuple(conn.scalars(made)),
        jobs=jobs.jobs_of_exchange(conn, exchange_id, project=project),
    )


def story(conn: sa.Connection, any_id: str, project: str) -> Story:
    """The newest explanation behind any id. NotFound says what became of an exchange that has none."""
    found = find(conn, any_id, project)
    if not found.explanation_ids:
        raise NotFound(f"{any_id} is not explained: {in_words(one_exchange(conn, project, str(found.exchange_id)))}")
    explanation = explained.load_explanation(conn, found.explanation_ids[0], project=project)
    game = played.load_game(conn, explanation.game_ids[0], project=project)
    exchange_id = explanation.exchange_id
    return Story(explanation, game, _content(conn, exchange_id, project) if exchange_id else None)


def newest(conn: sa.Connection, project: str, limit: int) -> list[Summary]:
    """The last exchanges by time of arrival, and what became of each."""
    return [
        Summary(
            exchange_id=row.exchange_id,
            upstream_id=row.upstream_id,
            received_at=row.received_at,
            model=row.model,
            state=in_words(row),
            explanation_id=row.explanation_id,
            r2=row.r2,
            answer=row.answer[:ANSWER_SHOWN],
        )
        for row in list_exchanges(conn, project, limit=limit).rows
    ]


def in_words(row: Row) -> str:
    """`failed: why`, `running, R2 0.81 so far`, or the state alone."""
    if row.state == row.verdict:
        return row.state
    is_live = row.state in (*LIVE, "paused")
    state = f"{row.state}, R2 {row.r2_so_far:.2f} so far" if is_live and row.r2_so_far is not None else row.state
    return f"{state}: {row.reason}" if row.reason and row.reason != row.state else state


def masks_of(conn: sa.Connection, project: str, exchange_id: str) -> int:
    """Readings that are committed for an exchange: how far its explanation is."""
    of_exchange = sa.and_(games.c.id == evidence_blocks.c.game_id, games.c.project == evidence_blocks.c.project)
    query = (
        sa.select(sa.func.coalesce(sa.func.sum(evidence_blocks.c.n_masks), 0))
        .select_from(evidence_blocks.join(games, of_exchange))
        .where(games.c.project == project, games.c.exchange_id == exchange_id)
    )
    return int(conn.execute(query).scalar_one())


def _content(conn: sa.Connection, exchange_id: str, project: str) -> Exchange | None:
    try:
        return captured.load_exchange(conn, exchange_id, project=project)
    except NotFound:
        return None
