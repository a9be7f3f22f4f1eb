"""What rules do about an exchange whose explanation failed: each flag that comes later tries once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from spex_proxy.facts.exchange import Exchange
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import DEFAULT_RULE, Rule, When
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.rules.read import read_rules
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.store import outbox, steering
from spex_proxy.store.connect import open_store, reading
from tests.contract.store.samples import Make

RECIPE = Recipe(budget=64)
RULES = 'rules:\n  - {name: look, when: {flag: "feedback:*"}, do: {explain: true}}\n'


@pytest.fixture
def store(database: Callable[[bool], str]) -> Iterator[sa.Engine]:
    opened = open_store(database(True))
    yield opened
    opened.dispose()


@pytest.fixture
def orders() -> Orders:
    book = read_rules(RULES, "rules.yaml", Rule(DEFAULT_RULE, When(), 1.0, 1.0, RECIPE), lambda _recipe: None)
    return Orders(lambda: book, Plugins(), Counters(), b"secret")


@pytest.fixture
def exchange(store: sa.Engine) -> Exchange:
    """Drawn; its job waits."""
    with store.begin() as conn:
        one = Make().saved(conn, obstacle=None)
        outbox.enqueue(conn, exchange_id=one.id, recipe=replace(RECIPE, plugins={"x": "1"}), why="sampled")
    return one


def flag(store: sa.Engine, orders: Orders, exchange: Exchange) -> None:
    with store.begin() as conn:
        orders.on_flags(conn, exchange, {"feedback:bad"})


def fail_next(store: sa.Engine) -> None:
    with store.begin() as conn:
        job = outbox.claim(conn, "test")
        assert job is not None
        outbox.fail(conn, job, "no room", final=True)


def states(store: sa.Engine, exchange: Exchange) -> list[tuple[str, str]]:
    with reading(store) as conn:
        return [(job.why, job.state) for job in reversed(outbox.jobs_of_exchange(conn, exchange.id))]


def test_what_failed_is_explained_when_it_is_flagged(store: sa.Engine, orders: Orders, exchange: Exchange) -> None:
    fail_next(store)
    flag(store, orders, exchange)
    flag(store, orders, exchange)
    again = ("flagged: feedback:bad", "queued")
    assert states(store, exchange) == [("sampled", "failed"), again], "the same flag twice makes one job"
    assert orders.counters.value("rule_actions", "explain") == 1
    assert orders.counters.value("rule_actions", "explained_already") == 1
    fail_next(store)
    flag(store, orders, exchange)
    assert states(store, exchange) == [("sampled", "failed"), (again[0], "failed"), again], "a job of another id"


@pytest.mark.parametrize("end", ["queued", "cancelled"])
def test_what_waits_or_was_cancelled_is_left(store: sa.Engine, orders: Orders, exchange: Exchange, end: str) -> None:
    if end == "cancelled":
        with store.begin() as conn:
            steering.cancel(conn, outbox.jobs_of_exchange(conn, exchange.id)[0].id)
    flag(store, orders, exchange)
    assert states(store, exchange) == [("sampled", end)]
    assert orders.counters.value("rule_actions", "explained_already") == 1
