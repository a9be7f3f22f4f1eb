"""Caps that all processes share, versions of the rules, and what is stored of a rule's decision."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from spex_proxy.facts.exchange import Exchange
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import Rule, RuleBook, When
from spex_proxy.flows.relay import Verdict
from spex_proxy.flows.save import Saved, save_captured
from spex_proxy.flows.understand import Captured
from spex_proxy.store import outbox, rules
from spex_proxy.store.connect import open_store, reading
from spex_proxy.store.tables import exchanges, rule_books, rule_uses
from tests.contract.store.samples import Make

AT = datetime(2026, 11, 22, 23, 59, 30, tzinfo=UTC)
RULE = Rule("mine", When(), 1.0, 1.0, Recipe(budget=99), priority=2, per_minute=2, per_day=3)


def test_so_many_in_a_minute_and_a_day(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        rules.save_book(conn, RuleBook("d", (RULE,)))  # makes the project
        assert [rules.take(conn, "a", "minute", AT, 2) for _ in range(3)] == [True, True, False]
        assert rules.take(conn, "a", "minute", AT + timedelta(minutes=1), 2)
        assert [rules.take(conn, "b", "minute", AT, n) for n in (0, 1, 1)] == [False, True, False]
        assert [rules.take(conn, "a", "day", AT, 1) for _ in range(2)] == [True, False]
        assert rules.take(conn, "a", "day", AT + timedelta(minutes=1), 1)  # after midnight, UTC


def test_a_cap_that_is_raised_gives_room(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        rules.save_book(conn, RuleBook("d", (RULE,)))
        assert [rules.take(conn, "a", "day", AT, 1) for _ in range(2)] == [True, False]
        assert [rules.take(conn, "a", "day", AT, 2) for _ in range(2)] == [True, False]


def test_old_minutes_go(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        rules.save_book(conn, RuleBook("d", (RULE,)))
        for hours in range(4):
            rules.take(conn, "a", "minute", AT + timedelta(hours=hours), 1)
        assert conn.scalar(sa.select(sa.func.count()).select_from(rule_uses)) == 2


def test_processes_share_a_cap(database: Callable[[bool], str]) -> None:
    stores = [open_store(database(True))]
    stores += [open_store(stores[0].url.render_as_string(hide_password=False)) for _ in range(3)]
    with stores[0].begin() as conn:
        rules.save_book(conn, RuleBook("d", (RULE,)))

    def take(one: sa.Engine) -> int:
        taken = 0
        for _ in range(10):
            with one.begin() as conn:
                taken += rules.take(conn, "a", "day", AT, 17)
        return taken

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, stores)) == 17
    for store in stores:
        store.dispose()


def test_versions_are_kept_once(engine: sa.Engine) -> None:
    book = RuleBook("sha256:x", (RULE,), "rules: []")
    with engine.begin() as conn:
        assert rules.save_book(conn, book)
        assert not rules.save_book(conn, book)
    with reading(engine) as conn:
        row = conn.execute(sa.select(rule_books)).one()
    assert (row.digest, row.text, row.settings["recipe"]["budget"]) == ("sha256:x", "rules: []", 99)


def captured(exchange: Exchange, rule: Rule | None = RULE, why: str = "sampled") -> Captured:
    return Captured(exchange, Verdict(True, why, 0.25, 1.0, True, rule, "sha256:book"), b"{}", None, None)


def save(engine: sa.Engine, *batch: Captured) -> list[Saved]:
    with engine.begin() as conn:
        return save_captured(conn, batch, Recipe(budget=16))


def test_a_rule_gives_its_jobs_recipe_and_priority_until_its_cap(engine: sa.Engine, make: Make) -> None:
    several = [replace(make.exchange(), received_at=AT) for _ in range(4)]
    saved = save(engine, *map(captured, several))
    assert saved == ["explain", "explain", "capped", "capped"]
    with reading(engine) as conn:
        rows = [conn.execute(sa.select(exchanges).where(exchanges.c.id == one.id)).one() for one in several]
        jobs = outbox.jobs_of_exchange(conn, several[0].id)
    assert [(row.explain, row.explain_why) for row in rows] == [(True, "sampled")] * 2 + [(False, "capped")] * 2
    assert {(row.rule, row.rules_digest, row.explain_probability) for row in rows} == {("mine", "sha256:book", 0.25)}
    assert [(job.recipe().budget, job.priority) for job in jobs] == [(99, 2)]


def test_saving_again_takes_nothing_of_a_cap(engine: sa.Engine, make: Make) -> None:
    one, other = (replace(make.exchange(), received_at=AT) for _ in range(2))
    assert save(engine, captured(one)) == ["explain"]
    assert save(engine, captured(one), captured(one)) == ["known", "known"]
    assert save(engine, captured(other)) == ["explain"]


def test_what_a_caller_asks_for_needs_no_room_and_what_rolls_back_takes_none(engine: sa.Engine, make: Make) -> None:
    full = replace(RULE, per_minute=0)
    assert save(engine, captured(make.exchange(), full, "header")) == ["explain"]
    assert save(engine, captured(make.exchange(), full)) == ["capped"]
    assert save(engine, captured(make.exchange(), None)) == ["explain"]
    one = replace(make.exchange(), received_at=AT)
    with engine.connect() as conn:
        save_captured(conn, [captured(one)], Recipe())
        conn.rollback()
    with reading(engine) as conn:
        assert conn.execute(sa.select(rule_uses)).all() == []
