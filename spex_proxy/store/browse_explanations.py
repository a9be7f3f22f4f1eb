"""Lists of explanations, and the evidence behind one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.evidence import Block
from spex_proxy.facts.explanation import Explanation, Flag
from spex_proxy.facts.game import Game
from spex_proxy.store import games as played
from spex_proxy.store.flags import of_explanations
from spex_proxy.store.listing import decode_cursor, encode_cursor
from spex_proxy.store.tables import explanations, flags


@dataclass(frozen=True, slots=True)
class ExplanationFilters:
    """What to list; None or empty leaves all in."""

    since: datetime | None = None
    """Made at this moment or later."""
    until: datetime | None = None
    """Made before this moment."""
    verdicts: tuple[str, ...] = ()
    flag: str | None = None
    """Name of a flag that it carries."""
    exchange_id: str | None = None


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
    conn: sa.Connection,
    project: str,
    filters: ExplanationFilters | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> ExplanationLines:
    """Newest first, at most `limit`. Raises ValueError for a cursor that is none of ours."""
    made = explanations.c.created_at
    query = _filtered(sa.select(*_COLUMNS), project, filters or ExplanationFilters())
    if cursor is not None:
        moment, last = decode_cursor(cursor)
        older = sa.and_(made == moment, explanations.c.id < last)
        # the first condition says nothing new, but it alone is a range of the index
        query = query.where(made <= moment, sa.or_(made < moment, older))
    found = conn.execute(query.order_by(made.desc(), explanations.c.id.desc()).limit(limit + 1)).all()
    raised = of_explanations(conn, project, [row.id for row in found[:limit]])
    lines = tuple(ExplanationLine(**row._mapping, flags=tuple(raised.get(row.id, ()))) for row in found[:limit])
    more = len(found) > limit
    return ExplanationLines(lines, encode_cursor(lines[-1].created_at, lines[-1].id) if more else None)


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


def _filtered(query: sa.Select[Any], project: str, filters: ExplanationFilters) -> sa.Select[Any]:
    query = query.where(explanations.c.project == project)
    if filters.since is not None:
        query = query.where(explanations.c.created_at >= filters.since)
    if filters.until is not None:
        query = query.where(explanations.c.created_at < filters.until)
    if filters.verdicts:
        query = query.where(explanations.c.verdict.in_(filters.verdicts))
    if filters.exchange_id is not None:
        query = query.where(explanations.c.exchange_id == filters.exchange_id)
    if filters.flag is not None:
        carrying = sa.select(flags.c.explanation_id).where(flags.c.project == project, flags.c.name == filters.flag)
        query = query.where(explanations.c.id.in_(carrying))
    return query
