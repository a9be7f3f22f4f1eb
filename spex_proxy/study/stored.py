"""From the store to a sheet: an explanation with what it is about and what it was made from."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from spex_proxy.engine.rows import Rows, rows_of
from spex_proxy.facts.errors import BadEvidence, VerificationFailed
from spex_proxy.facts.evidence import Evidence
from spex_proxy.store.browse import Story, story
from spex_proxy.store.browse_explanations import measured
from spex_proxy.store.games import load_blocks
from spex_proxy.study.coalitions import Table, make_table
from spex_proxy.study.sheet import Sheet, make_sheet


def load_sheet(conn: sa.Connection, explanation_id: str, project: str) -> tuple[Sheet, str]:
    """An explanation laid out, and what is wrong with its evidence. Raises NotFound."""
    told = story(conn, explanation_id, project)
    try:
        rows: tuple[Rows | None, Rows | None] = _rows(conn, told)
    except (VerificationFailed, BadEvidence) as error:
        return make_sheet(told.explanation, told.game, told.exchange, None), str(error)
    return make_sheet(told.explanation, told.game, told.exchange, *rows), ""


def load_table(conn: sa.Connection, explanation_id: str, players: Sequence[int], project: str) -> tuple[Story, Table]:
    """The 2^k table of some players, from 0. Raises NotFound, VerificationFailed or BadEvidence, and ValueError
    for players that make none."""
    told = story(conn, explanation_id, project)
    rows, later = _rows(conn, told)
    return told, make_table(told.explanation.spectrum, rows, players, later)


def _rows(conn: sa.Connection, told: Story) -> tuple[Rows, Rows]:
    """What the explanation cites, and all that its game has by now."""
    first = measured(conn, told.explanation)[0]
    n = first.game.n_players
    everything = load_blocks(conn, first.game.id, project=first.game.project)
    return rows_of(Evidence.from_blocks(n, first.blocks)), rows_of(Evidence.from_blocks(n, everything))
