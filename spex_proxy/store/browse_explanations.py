"""Lists of explanations, and the evidence behind one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.evidence import Block
from spex_proxy.facts.explanation import Explanation, Flag
from spex_proxy.facts.game import Game
from spex_proxy.facts.query import Query
from spex_proxy.store import games as played
from spex_proxy.store.fitting import (
    MOST_READ,
    MOST_SEEN,
    asked_of_model,
    between,
    flagged,
    has_term,
    not_older,
    of_exchange,
    of_explanation,
    older,
    reaches,
    refuse_broad,
)
from spex_proxy.store.flags import of_explanations
from spex_proxy.store.listing import Place, decode_cursor, encode_cursor
from spex_proxy.store.tables import explanations, flags


@dataclass(frozen=True, slots=True)
class ExplanationLine:
    """One explanation in a list: nothing that would have to be decoded."""

    id: str
    project: str
    exchange_id: str | None
    created_at: datetime
    method: str
    verdict: str
    verdict_reason: str
    r2: float | None
    r2_low: float | None
    r2_high: float | None
    n_players: int
    n_terms: int
    cost_masks: int
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, slots=True)
class ExplanationLines:
    """Some lines, and where the next ones begin."""

    lines: tuple[ExplanationLine, ...]
    next_cursor: str | None
    """None on the last page."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One game with the answered batches that an explanation cites."""

    game: Game
    blocks: tuple[Block, ...]


_COLUMNS = [explanations.c[name] for name in ExplanationLine.__dataclass_fields__ if name != "flags"]


def list_explanations(
    conn: sa.Connection, project: str, query: Query | None = None, *, cursor: str | None = None, limit: int = 50
) -> ExplanationLines:
    """Newest first, at most `limit`; `query.exchange` is an exchange's whole id.

    A page may be short before the list ends (fitting.MOST_SEEN). Raises ValueError for a cursor that is none of
    ours, or a text without a word; TooBroad.
    """
    query = query or Query()
    refuse_broad(query, "explanations")
    most = MOST_SEEN if query.text is None else MOST_READ
    wanted, reached = walk(conn, project, query, None if cursor is None else decode_cursor(cursor), most)
    wanted += has_term(project, query, explanations)
    made = sa.select(*_COLUMNS).where(*wanted).order_by(explanations.c.created_at.desc(), explanations.c.id.desc())
    found = conn.execute(made.limit(limit + 1)).all()
    raised = of_explanations(conn, project, [row.id for row in found[:limit]])
    lines = tuple(ExplanationLine(**row._mapping, flags=tuple(raised.get(row.id, ()))) for row in found[:limit])
    if len(found) > limit:
        return ExplanationLines(lines, encode_cursor(lines[-1].created_at, lines[-1].id))
    return ExplanationLines(lines, encode_cursor(*reached) if reached else None)


def walk(
    conn: sa.Connection, project: str, query: Query, place: Place | None, most: int
) -> tuple[list[Any], Place | None]:
    """All conditions on explanations but those on their terms, and where this page must end, if it must: `most`
    explanations on, of those that an index of `explanations` by time leads to."""
    at, key = explanations.c.created_at, explanations.c.id
    wanted = [explanations.c.project == project, *between(query, at)]
    wanted += [explanations.c.verdict.in_(query.verdict)] if query.verdict else []
    wanted += [] if query.exchange is None else [explanations.c.exchange_id == query.exchange]
    wanted += [] if place is None else older(at, key, place)
    tried = of_exchange(conn, project, query, explanations.c.exchange_id)
    tried += asked_of_model(project, query, explanations.c.exchange_id)
    tried += of_explanation(replace(query, verdict=()), explanations)
    of_its_exchange = sa.and_(flags.c.exchange_id == explanations.c.exchange_id, flags.c.explanation_id.is_(None))
    tried += flagged(project, query, flags.c.explanation_id == key, of_its_exchange)
    if not tried and not query.seeks_terms:
        return wanted, None
    last = reaches(conn, sa.select(at, key).where(*wanted).order_by(at.desc(), key.desc()), most)
    if last is None:
        return wanted + tried, None
    return [*wanted, *not_older(at, key, (last[0], last[1])), *tried], (last[0], last[1])


def measured(conn: sa.Connection, explanation: Explanation) -> tuple[Measured, ...]:
    """The evidence that an explanation cites. Later jobs may have added to its games; that is left out.

    Raises VerificationFailed if a block's bytes do not fit its digest.
    """
    project = explanation.project
    cited: Sequence[int | None] = explanation.how.get("blocks") or [None] * len(explanation.game_ids)
    return tuple(
        Measured(
            played.load_game(conn, game_id, project=project),
            played.load_blocks(conn, game_id, project=project)[:count],
        )
        for game_id, count in zip(explanation.game_ids, cited, strict=True)
    )
