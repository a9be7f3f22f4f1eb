"""What explaining has cost lately: added up from the evidence, so no count can drift from it."""

from __future__ import annotations

import sqlalchemy as sa

from spex_proxy.facts.token_budget import WINDOWS
from spex_proxy.store.columns import DEFAULT_PROJECT
from spex_proxy.store.rows import clock
from spex_proxy.store.tables import evidence_blocks, exchanges, games


def spent(conn: sa.Connection, *, rule: str | None = None, project: str = DEFAULT_PROJECT) -> dict[str, int]:
    """Window (`minute`, `hour`, `day`) -> prompt tokens that the server computed for us in it, whoever asked; with a
    `rule`, for the exchanges that it decided about."""
    now, blocks = clock(conn), evidence_blocks.c
    computed = blocks.prompt_tokens - blocks.cached_tokens
    sums = [
        sa.func.coalesce(sa.func.sum(sa.case((blocks.asked_at >= now - length, computed), else_=0)), 0).label(window)
        for window, length in WINDOWS.items()
    ]
    longest = max(WINDOWS.values())
    query = sa.select(*sums).where(blocks.project == project, blocks.asked_at >= now - longest)
    if rule is not None:
        query = query.where(
            games.c.project == blocks.project, games.c.id == blocks.game_id,
            exchanges.c.project == games.c.project, exchanges.c.id == games.c.exchange_id, exchanges.c.rule == rule,
        )  # fmt: skip
    row = conn.execute(query).one()
    return {window: int(value) for window, value in row._mapping.items()}
