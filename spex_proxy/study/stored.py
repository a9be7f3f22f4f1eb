"""From the store to a sheet: an explanation with what it is about and what it was made from."""

from __future__ import annotations

import sqlalchemy as sa

from spex_proxy.engine.rows import Rows, rows_of
from spex_proxy.facts.errors import BadEvidence, VerificationFailed
from spex_proxy.facts.evidence import Evidence
from spex_proxy.store.browse import Story, story
from spex_proxy.store.browse_explanations import measured
from spex_proxy.study.sheet import Sheet, make_sheet


def load_sheet(conn: sa.Connection, explanation_id: str, project: str) -> tuple[Sheet, str]:
    """An explanation laid out, and what is wrong with its evidence. Raises NotFound."""
    told = story(conn, explanation_id, project)
    rows, damage = _evidence(conn, told)
    return make_sheet(told.explanation, told.game, told.exchange, rows), damage


def load_evidence(conn: sa.Connection, explanation_id: str, project: str) -> tuple[Story, Rows]:
    """For one 2^k table. Raises NotFound, VerificationFailed or BadEvidence."""
    told = story(conn, explanation_id, project)
    return told, _rows(conn, told)


def _evidence(conn: sa.Connection, told: Story) -> tuple[Rows | None, str]:
    try:
        return _rows(conn, told), ""
    except (VerificationFailed, BadEvidence) as error:
        return None, str(error)


def _rows(conn: sa.Connection, told: Story) -> Rows:
    first = measured(conn, told.explanation)[0]
    return rows_of(Evidence.from_blocks(first.game.n_players, first.blocks))
