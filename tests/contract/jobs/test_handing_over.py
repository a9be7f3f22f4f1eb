"""The rows that the runner lives by: claims as fences, takeovers that are counted, heartbeats by one clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from spex_proxy.facts.errors import ClaimLost, NotFound
from spex_proxy.store import columns, dispatch, outbox, rows, steering, workers
from spex_proxy.store.columns import utc_now
from spex_proxy.store.connect import open_store, reading
from spex_proxy.store.tables import workers as rows_of_workers
from tests.contract.store.samples import Make

TTL = timedelta(seconds=20)
real_now = utc_now


@pytest.fixture
def engine(database: Callable[[bool], str]) -> Iterator[sa.Engine]:
    opened = open_store(database(True))
    yield opened
    opened.dispose()


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def wrong_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """This machine's clock is off from now on."""

    def set_off(by: timedelta) -> None:
        def now() -> datetime:
            return real_now() + by

        for module in (columns, outbox, dispatch, rows):
            monkeypatch.setattr(module, "utc_now", now)

    return set_off


def add(conn: sa.Connection, make: Make, **options: Any) -> str:
    return outbox.enqueue(conn, exchange_id=make.saved(conn).id, recipe=make.recipe, why="drawn", **options)


def take(conn: sa.Connection, worker: str = "w", **options: Any) -> outbox.Job:
    job = outbox.claim(conn, worker, **options)
    assert job is not None
    return job


# ---- the claim as a fence ----


def test_a_claim_is_held_until_the_job_is_somebody_elses(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        add(conn, make)
        mine = take(conn)
        assert outbox.hold(conn, mine) == "running"
        dispatch.take_over(conn, live=set(), most=3)
        with pytest.raises(ClaimLost, match="no longer belongs to w"):
            outbox.hold(conn, mine)
        theirs = take(conn, "successor")
        with pytest.raises(ClaimLost):
            outbox.hold(conn, mine)
        assert outbox.hold(conn, theirs) == "running"
        steering.cancel(conn, mine.id)
        with pytest.raises(ClaimLost):
            outbox.hold(conn, theirs)


def test_what_was_answered_when_a_job_is_paused_is_kept(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        add(conn, make)
        job = take(conn)
        steering.pause(conn, job.id)
        assert outbox.hold(conn, job) == "paused"
        steering.resume(conn, job.id)
        with pytest.raises(ClaimLost):
            outbox.hold(conn, job)
        assert take(conn).attempts == 2


def test_a_paused_queue_hands_back_what_runs_and_starts_nothing(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        add(conn, make)
        add(conn, make)
        job = take(conn)
        assert steering.pause_queue(conn) is True
        assert outbox.is_paused(conn)
        assert outbox.hold(conn, job) == "queued"
        assert outbox.claim(conn, "w") is None
        assert dispatch.undispatched(conn, 9) == ()
        assert steering.resume_queue(conn) is True
        assert steering.resume_queue(conn) is False
        assert len(dispatch.undispatched(conn, 9)) == 2


def test_people_are_told_what_is_not_there_or_has_ended(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        job_id = add(conn, make)
        for ask in (steering.cancel, steering.pause, steering.resume):
            with pytest.raises(NotFound):
                ask(conn, "nobody")
            with pytest.raises(NotFound):
                ask(conn, job_id, project="another")
        assert steering.resume(conn, job_id) is False
        assert steering.cancel(conn, job_id) is True
        assert steering.cancel(conn, job_id) is False
        assert steering.pause(conn, job_id) is False


# ---- handing over ----


def test_every_way_back_to_the_queue_is_another_dispatch(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        add(conn, make)
        numbers = []
        for back in (
            lambda job: outbox.fail(conn, job, "busy", final=False),
            lambda job: outbox.requeue_running(conn, "w"),
            lambda job: dispatch.take_over(conn, live=set(), most=3),
            lambda job: (steering.pause(conn, job.id), steering.resume(conn, job.id)),
        ):
            (given,) = dispatch.undispatched(conn, 9)
            dispatch.mark_dispatched(conn, [given])
            assert dispatch.undispatched(conn, 9) == ()
            assert dispatch.dispatched(conn, 9) == (given,)
            numbers.append(given.number)
            assert outbox.claim(conn, "w", job_id=given.job_id, dispatch=given.number - 1) is None
            back(take(conn, dispatch=given.number))
        assert numbers == [0, 1, 2, 3]


def test_what_the_runner_lost_is_handed_over_again_unless_it_went_on(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        add(conn, make)
        (given,) = dispatch.undispatched(conn, 9)
        dispatch.mark_dispatched(conn, [given])
        assert dispatch.redispatch(conn, [given]) == 1
        assert dispatch.redispatch(conn, [given]) == 0
        (again,) = dispatch.undispatched(conn, 9)
        assert again.number == 1
        take(conn)
        assert dispatch.redispatch(conn, [again]) == 0


# ---- takeovers ----


def test_a_job_that_outlives_too_many_workers_fails(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        job_id = add(conn, make)
        for death in range(1, 5):
            take(conn, f"worker-{death}")
            assert dispatch.take_over(conn, {f"worker-{death}"}, most=3) == ()
            (job,) = dispatch.take_over(conn, {"another"}, most=3)
            assert job.id == job_id
        assert job.state == "failed"
        assert job.reason == "the worker died with this job 4 times in a row; the last was worker-4"


def test_a_reading_shows_that_the_job_is_not_to_blame(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        job_id = add(conn, make)
        for _ in range(9):
            outbox.hold(conn, take(conn))
            dispatch.take_over(conn, set(), most=3)
        assert outbox.load_job(conn, job_id).state == "queued"


@pytest.mark.postgres
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_worker_that_freezes_in_a_transaction_loses_it(
    engine: sa.Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "STOPPED_SECONDS", 1)
    with engine.begin() as conn:
        add(conn, make)
        job = take(conn)
    frozen = engine.connect()
    frozen.begin()
    assert outbox.hold(frozen, job) == "running"
    with engine.begin() as conn:
        assert dispatch.take_over(conn, set(), most=3) == (), "its row is passed over, not waited for"
    time.sleep(1.5)
    with engine.begin() as conn:
        assert [taken.id for taken in dispatch.take_over(conn, set(), most=3)] == [job.id]
    with pytest.raises(sa.exc.DBAPIError):
        outbox.finish(frozen, job, "never")
    frozen.invalidate()
    frozen.close()


# ---- clocks ----


def test_heartbeats(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        workers.beat(conn, "one", concurrency=2)
        workers.beat(conn, "two", concurrency=1)
        first = workers.live(conn, TTL)
        workers.beat(conn, "one", concurrency=2)
        assert [(w.id, w.concurrency) for w in first] == [("one", 2), ("two", 1)]
        assert workers.live(conn, TTL)[0].started_at == first[0].started_at
        conn.execute(sa.update(rows_of_workers).where(rows_of_workers.c.id == "two").values(seen_at=utc_now() - TTL))
        assert [w.id for w in workers.live(conn, TTL)] == ["one"]
        assert workers.forget_dead(conn, TTL) == 1
        workers.leave(conn, "one")
        assert workers.live(conn, TTL) == ()


@pytest.mark.postgres
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("hours", [-30, 30])
def test_a_machine_whose_clock_is_wrong_is_alive_and_judges_no_worse(
    engine: sa.Engine, make: Make, hours: int, wrong_clock: Callable[[timedelta], None]
) -> None:
    with engine.begin() as conn:
        workers.beat(conn, "right", concurrency=1)
    wrong_clock(timedelta(hours=hours))
    with engine.begin() as conn:
        workers.beat(conn, "wrong", concurrency=1)
        assert {w.id for w in workers.live(conn, TTL)} == {"right", "wrong"}
        assert workers.forget_dead(conn, TTL) == 0
        add(conn, make)
        job = take(conn)
        outbox.fail(conn, job, "busy", final=False, retry_at=rows.clock(conn) + timedelta(seconds=60))
        assert outbox.claim(conn, "wrong") is None, "a pause is a pause on every machine"
        assert take(conn, now=rows.clock(conn) + timedelta(seconds=61)).attempts == 2


def test_a_clock_that_is_set_back_keeps_no_job_waiting(
    engine: sa.Engine, make: Make, wrong_clock: Callable[[timedelta], None]
) -> None:
    with engine.begin() as conn:
        add(conn, make)
        later = rows.clock(conn) + timedelta(days=1)  # written by a clock that ran ahead
        outbox.fail(conn, take(conn), "busy", final=False, retry_at=later)
        assert take(conn).attempts == 2


def test_reading_needs_no_writing(engine: sa.Engine) -> None:
    """Who only looks (the API, the doctor) may do so in a read-only transaction."""
    with reading(engine) as conn:
        workers.live(conn, TTL)
        dispatch.undispatched(conn, 1)
        assert outbox.is_paused(conn) is False
