"""What explaining has cost lately, from the evidence, on both databases."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from spex_proxy.store import games, spending
from spex_proxy.store.rows import clock
from spex_proxy.store.tables import evidence_blocks, exchanges
from tests.contract.store.samples import Make


def test_windows_slide(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        game = games.save_game(conn, make.game(exchange.id))
        assert spending.spent(conn) == {"minute": 0, "hour": 0, "day": 0}
        for number in range(3):
            games.append_block(conn, game.id, make.block(number))
        blocks = conn.execute(sa.select(evidence_blocks.c.prompt_tokens, evidence_blocks.c.cached_tokens)).all()
        each = [prompt - cached for prompt, cached in blocks]
        assert spending.spent(conn) == dict.fromkeys(("minute", "hour", "day"), sum(each))
        now = clock(conn)
        for number, ago in enumerate([timedelta(minutes=30), timedelta(hours=5), timedelta(days=2)]):
            change = sa.update(evidence_blocks).where(evidence_blocks.c.number == number).values(asked_at=now - ago)
            conn.execute(change)
        assert spending.spent(conn) == {"minute": 0, "hour": each[0], "day": each[0] + each[1]}
        whole = spending.spent(conn)
        assert spending.spent(conn, rule="legal") == {"minute": 0, "hour": 0, "day": 0}
        conn.execute(sa.update(exchanges).where(exchanges.c.id == exchange.id).values(rule="legal"))
        assert spending.spent(conn, rule="legal") == whole
        assert spending.spent(conn, rule="other") == {"minute": 0, "hour": 0, "day": 0}
        assert spending.spent(conn, project="another") == {"minute": 0, "hour": 0, "day": 0}
