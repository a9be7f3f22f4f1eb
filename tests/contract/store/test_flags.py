"""Flags and notices: kept once, read in order, sent by one sender at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.explanation import Flag
from spex_proxy.store import exchanges, explanations, flags, games, webhooks
from spex_proxy.store.tables import exchanges as captured
from spex_proxy.store.tables_of_flags import webhooks as notices
from tests.contract.store.samples import NOON, Make


def test_a_flag_is_kept_once_and_tells_who_raised_it(engine: sa.Engine, make: Make) -> None:
    flag = Flag("toxic", "line\x00 two", 0.93, "guard-7", "")
    with engine.begin() as conn:
        exchange = make.saved(conn)
        assert flags.raise_on_exchange(conn, exchange.id, flag, NOON, who="guard-7")
        assert not flags.raise_on_exchange(conn, exchange.id, flag, NOON + timedelta(1), who="guard-7")
        assert flags.raise_on_exchange(conn, exchange.id, flag, NOON + timedelta(2), who="guard-7", key="k")
        assert flags.raise_on_exchange(conn, make.saved(conn).id, flag, NOON, who="guard-7"), "another exchange"
        first, second = flags.of_exchange(conn, exchange.id)
        assert (first.flag.name, first.flag.score, first.who, first.raised_at) == ("toxic", 0.93, "guard-7", NOON)
        assert second.raised_at == NOON + timedelta(2)


def test_the_flags_of_an_explanation_are_flags_of_its_exchange(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        game = games.save_game(conn, make.game(exchange.id))
        made = make.explanation(exchange.id, (game.id,), flags=(Flag("b", "x", 0.5, "f", "v 1"), Flag("a", "y")))
        explanations.save_explanation(conn, made)
        flags.raise_on_exchange(conn, exchange.id, Flag("own", "z"), NOON - timedelta(1))
        found = flags.of_exchange(conn, exchange.id)
        assert [(one.flag.name, one.explanation_id) for one in found] == [("own", None), ("b", made.id), ("a", made.id)]
        assert explanations.load_explanation(conn, made.id).flags == made.flags


def test_what_is_to_be_kept_only_grows(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        for days in (3, 9, 1):
            exchanges.keep_until(conn, exchange.id, NOON + timedelta(days))
        assert conn.scalar(sa.select(captured.c.keep_until)) == NOON + timedelta(9)


def test_a_notice_is_sent_by_one_and_again_after_a_pause(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        given: dict[str, Any] = {"rule": "tell", "rules_digest": None, "exchange_id": exchange.id}
        given |= {"explanation_id": None, "flags": ["b", "a"]}
        assert webhooks.plan(conn, "http://there", **given)
        assert not webhooks.plan(conn, "http://there", **{**given, "flags": ["a", "b"]})
    with engine.begin() as conn:
        notice = webhooks.claim_due(conn)
        assert notice is not None
        assert (notice.url, notice.tries, list(notice.flags)) == ("http://there", 1, ["b", "a"])
        assert webhooks.claim_due(conn) is None, "it is being sent"
        webhooks.settle(conn, notice, "answered 503")
        assert webhooks.claim_due(conn) is None, "not before the pause is over"
        conn.execute(sa.update(notices).values(due_at=NOON - timedelta(400)))
        again = webhooks.claim_due(conn)
        assert again is not None
        webhooks.settle(conn, notice, "late news of the first try")
        webhooks.settle(conn, again, None)
        row = conn.execute(sa.select(notices)).one()
        assert (row.state, row.tries, row.reason) == ("sent", 2, None)
