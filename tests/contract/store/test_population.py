"""Of a drawn exchange, the draw's own explanation stands for all requests, and no other one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from spex_proxy.facts.query import Query
from spex_proxy.facts.recipe import Recipe
from spex_proxy.store import outbox
from spex_proxy.store.connect import reading
from spex_proxy.store.population import population
from spex_proxy.store.tables import outbox as jobs
from tests.contract.store.samples import NOON, Make
from tests.contract.store.test_queries import DAY_BEFORE, explained, saved


def job_of(conn: sa.Connection, exchange_id: str, why: str, made: str | None = None, **more: Any) -> None:
    """A job, and the explanation that it made."""
    one = outbox.enqueue(conn, exchange_id=exchange_id, recipe=Recipe(), why=why, **more)
    if made is not None:
        conn.execute(sa.update(jobs).where(jobs.c.id == one).values(state="done", explanation_id=made))


def test_of_a_drawn_exchange_the_draws_explanation_counts(engine: sa.Engine, make: Make) -> None:
    """Whatever reviewers asked for besides, before or after."""
    later = NOON + timedelta(days=2)
    with engine.begin() as conn:
        for number in range(4):
            one = saved(conn, make, rule="r")
            if number == 0:
                job_of(conn, one, "asked", explained(conn, make, one, "tool", created_at=NOON - timedelta(hours=1)))
            job_of(conn, one, "sampled", explained(conn, make, one, "system"))
            if number < 3:
                job_of(conn, one, "asked", explained(conn, make, one, "tool", created_at=later))
                job_of(conn, one, "flagged: x", explained(conn, make, one, "tool", created_at=later))
    beside = "of a drawn exchange, but not by its draw"
    with reading(engine) as conn:
        found = population(conn, "default", Query(since=DAY_BEFORE))
        assert (found.read, dict(found.left_out)) == (11, {beside: 7})
        assert found.whole.requests.value == pytest.approx(4 / 0.125)
        assert found.whole.origins["system"].value == pytest.approx(1.0)
        assert "tool" not in found.whole.origins
        found = population(conn, "default", Query(since=later))
        assert (found.read, dict(found.left_out)) == (6, {beside: 6})
        assert found.whole.requests.value == 0


def test_of_a_draw_that_explained_nothing_no_other_explanation_counts(engine: sa.Engine, make: Make) -> None:
    """Whom a reviewer looks at is no random choice."""
    with engine.begin() as conn:
        one = saved(conn, make)
        job_of(conn, one, "sampled")
        job_of(conn, one, "sampled", explained(conn, make, one), kind="retest")
        job_of(conn, one, "asked", explained(conn, make, one))
    with reading(engine) as conn:
        found = population(conn, "default", Query(since=DAY_BEFORE))
    assert (found.read, sum(found.left_out.values())) == (2, 2)


def test_without_its_job_the_oldest_explanation_of_a_drawn_exchange_counts(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        one = saved(conn, make, why="header")
        explained(conn, make, one, "system")
        for _ in range(2):
            explained(conn, make, one, "tool")
        explained(conn, make, one, "tool", created_at=NOON + timedelta(days=1))
    with reading(engine) as conn:
        found = population(conn, "default", Query(since=DAY_BEFORE))
        assert (found.read, sum(found.left_out.values()), set(found.whole.origins)) == (4, 3, {"system"})
        found = population(conn, "default", Query(since=NOON + timedelta(hours=1)))
        assert (found.read, sum(found.left_out.values())) == (1, 1), "the oldest is not of this window"
