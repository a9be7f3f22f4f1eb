"""What is there is made findable anew: words, users and tags of exchanges, and where explanations' terms come from.

Rows of before revision 0007 were never indexed; and what a later version takes for a word, rows of before it lack.
One step is one transaction of the caller's, so that a relay that stores meanwhile never waits for long, and whoever
is stopped goes on where they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.errors import SpexError
from spex_proxy.facts.exchange import Segment
from spex_proxy.facts.origins import bits_of
from spex_proxy.store import codec, exchanges, search
from spex_proxy.store.tables import contents, explanation_games, games, interactions, texts

Place = tuple[str, str]
"""Project and id of the last row that was looked at."""

STEP = 100
"""Rows of one transaction."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction did."""

    place: Place | None
    """Where the next one begins; None if all has been looked at."""
    looked: int
    changed: int
    unreadable: int = 0
    """Content that does not decode, or belongs to a newer version. It is left as it is."""


def count(conn: sa.Connection) -> int:
    """How many rows there are to look at: exchanges with content, and explanations with terms. Reads them all."""
    held = sa.select(sa.func.count()).select_from(contents).where(*_HELD)
    explained = sa.select(sa.func.count()).select_from(interactions).where(interactions.c.rank == 0)
    return int(conn.scalar(held) or 0) + int(conn.scalar(explained) or 0)


def index_words(conn: sa.Connection, after: Place | None, *, everything: bool, limit: int = STEP) -> Step:
    """Words, users and tags of the next exchanges: of those that have none; with `everything`, of all."""
    key = sa.tuple_(contents.c.project, contents.c.exchange_id)
    its_words = sa.and_(texts.c.project == contents.c.project, texts.c.exchange_id == contents.c.exchange_id)
    query = (
        sa.select(contents.c.project, contents.c.exchange_id, texts.c.number)
        .select_from(contents.outerjoin(texts, its_words))
        .where(*_HELD, *([] if after is None else [key > after]))
        .order_by(contents.c.project, contents.c.exchange_id)
        .limit(limit)
    )
    found = conn.execute(query).all()
    changed = unreadable = 0
    for project, exchange_id, number in found:
        if number is not None and not everything:
            continue
        try:
            exchange = exchanges.load_exchange(conn, exchange_id, project=project)
        except SpexError:
            unreadable += 1
            continue
        search.remove(conn, project, exchange_id)
        search.index_exchanges(conn, [exchange])
        changed += 1
    return Step(_end(found, limit), len(found), changed, unreadable)


def index_origins(conn: sa.Connection, after: Place | None, *, limit: int = STEP) -> Step:
    """Where the terms of the next explanations come from: the players' ranges are stored, so no content is read."""
    key = sa.tuple_(interactions.c.project, interactions.c.explanation_id)
    query = (
        sa.select(interactions.c.project, interactions.c.explanation_id)
        .where(interactions.c.rank == 0, *([] if after is None else [key > after]))
        .order_by(interactions.c.project, interactions.c.explanation_id)
        .limit(limit)
    )
    found = conn.execute(query).all()
    changed = unreadable = 0
    for project, explanation_id in found:
        try:
            changed += _set_origins(conn, project, explanation_id)
        except (SpexError, IndexError):
            unreadable += 1
    return Step(_end(found, limit), len(found), changed, unreadable)


_HELD = (contents.c.part == "exchange", contents.c.blob.is_not(None))


def _end(found: Any, limit: int) -> Place | None:
    return (found[-1][0], found[-1][1]) if len(found) == limit else None


def _set_origins(conn: sa.Connection, project: str, explanation_id: str) -> bool:
    """Whether any term's was another."""
    ours = (interactions.c.project == project, interactions.c.explanation_id == explanation_id)
    terms = conn.execute(sa.select(interactions.c.rank, interactions.c.players, interactions.c.origins).where(*ours))
    segments, is_changed = _segments(conn, project, explanation_id), False
    for rank, players, origins in terms.all():
        wanted = bits_of(segments[player] for player in players) if segments else 0
        if wanted != origins:
            conn.execute(sa.update(interactions).where(*ours, interactions.c.rank == rank).values(origins=wanted))
            is_changed = True
    return is_changed


def _segments(conn: sa.Connection, project: str, explanation_id: str) -> tuple[Segment, ...]:
    """The players of the game that the terms are of."""
    cited = explanation_games.c
    first = sa.select(cited.game_id).where(
        cited.project == project, cited.explanation_id == explanation_id, cited.position == 0
    )
    its_game = (games.c.project == project, games.c.id == first.scalar_subquery())
    found = conn.scalar(sa.select(games.c.players).where(*its_game))
    return codec.decode_players(found, f"players of explanation {explanation_id}").segments if found else ()
