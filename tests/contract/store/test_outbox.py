"""Jobs: each is done once, whoever races for it and whoever dies."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound, SpexError
from spex_proxy.facts.explanation import Explanation
from spex_proxy.store import explanations, outbox
from spex_proxy.store.columns import utc_now
from spex_proxy.store.connect import reading
from spex_proxy.store.outbox import Priority
from spex_proxy.store.tables import outbox as table
from tests.contract.store.samples import Make


def add(conn: sa.Connection, make: Make, **options: Any) -> str:
    exchange = make.saved(conn)
    return outbox.enqueue(conn, exchange_id=exchange.id, recipe=make.recipe, **{"why": "drawn"} | options)


def take(conn: sa.Connection, worker: str = "w", **options: Any) -> outbox.Job:
    job = outbox.claim(conn, worker, **options)
    assert job is not None
    return job


def test_a_job_carries_what_its_worker_needs(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        job_id = add(conn, make, traceparent="00-request", tracestate="a=b", priority=Priority.ASKED, why="asked")
        job = take(conn, "worker-1")
    assert (job.id, job.project, job.state, job.attempts, job.worker) == (job_id, "default", "running", 1, "worker-1")
    assert (job.traceparent, job.tracestate, job.priority, job.why) == ("00-request", "a=b", 1, "asked")
    assert job.recipe() == make.recipe
    assert job.started_at is not None
    assert job.started_at >= job.created_at
    with reading(engine) as conn:
        assert outbox.load_job(conn, job_id) == job
        assert outbox.jobs_of_exchange(conn, job.exchange_id) == (job,)
        with pytest.raises(NotFound, match="no job 'nobody'"):
            outbox.load_job(conn, "nobody")


def test_the_most_urgent_then_the_oldest_comes_first(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        order = (Priority.SAMPLED, Priority.FLAGGED, Priority.SAMPLED, Priority.ASKED, Priority.FLAGGED)
        ids = [add(conn, make, priority=priority) for priority in order]
        taken = [take(conn).id for _ in ids]
        assert outbox.claim(conn, "w") is None
    assert taken == [ids[3], ids[1], ids[4], ids[0], ids[2]]


def test_one_job_can_be_taken_by_name(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        add(conn, make, priority=Priority.ASKED)
        wanted = add(conn, make)
        assert take(conn, job_id=wanted).id == wanted
        assert outbox.claim(conn, "w", job_id=wanted) is None


def test_a_job_ends_once(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        add(conn, make)
        job = take(conn)
        explanation = make.explanation(job.exchange_id, ())
        explanations.save_explanation(conn, explanation)
        outbox.finish(conn, job, explanation.id)
    with engine.begin() as conn:
        done = outbox.load_job(conn, job.id)
        assert (done.state, done.explanation_id, done.reason) == ("done", explanation.id, None)
        assert done.finished_at is not None
        with pytest.raises(NotFound, match="no longer belongs to w"):
            outbox.finish(conn, job, explanation.id)
        with pytest.raises(NotFound, match="attempt 1"):
            outbox.fail(conn, job, "late", final=True)
        others = dict.fromkeys(("queued", "running", "paused", "failed", "cancelled"), 0)
        assert outbox.counts(conn) == others | {"done": 1}


def test_a_passing_failure_is_tried_again_a_final_one_is_kept(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        add(conn, make)
        first = take(conn)
        outbox.fail(conn, first, "server busy", final=False)
        second = take(conn)
        assert (second.id, second.attempts, second.reason) == (first.id, 2, "server busy")
        outbox.fail(conn, second, "no players", final=True)
        failed = outbox.load_job(conn, first.id)
        assert (failed.state, failed.reason) == ("failed", "no players")
        assert outbox.claim(conn, "w") is None
        assert outbox.counts(conn, "default")["failed"] == 1
        assert outbox.counts(conn, "other")["failed"] == 0


def test_a_reason_that_no_database_can_hold_is_kept_all_the_same(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        job_id = add(conn, make)
        outbox.fail(conn, take(conn), "bad reply: 'a\0b\ud800'", final=True)
        assert outbox.load_job(conn, job_id).reason == "bad reply: 'a\ufffdb\ufffd'"


def test_a_job_can_be_left_alone_for_a_while(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        later = utc_now() + timedelta(minutes=5)
        add(conn, make)
        other = add(conn, make)
        outbox.fail(conn, take(conn), "server busy", final=False, retry_at=later)
        assert take(conn).id == other
        assert outbox.claim(conn, "w") is None
        assert take(conn, now=later).attempts == 2


def test_a_restarted_worker_gets_its_own_jobs_back(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        mine, theirs = add(conn, make), add(conn, make)
        take(conn, "mine")
        take(conn, "theirs")
        assert outbox.requeue_running(conn, "mine") == 1
        assert outbox.load_job(conn, mine).state == "queued"
        assert outbox.load_job(conn, theirs).state == "running"
        assert outbox.requeue_running(conn) == 1


def test_a_worker_that_lost_its_job_writes_nothing(engine: sa.Engine, make: Make) -> None:
    """Stopped, taken over, woken up: its whole transaction rolls back."""
    with engine.begin() as conn:
        add(conn, make)
        sleeper = take(conn, "sleeper")
    with engine.begin() as conn:
        outbox.requeue_running(conn, "sleeper")
        successor = take(conn, "successor")
    late = make.explanation(sleeper.exchange_id, ())

    def conclude(job: outbox.Job, explanation: Explanation) -> None:
        with engine.begin() as conn:
            explanations.save_explanation(conn, explanation)
            outbox.finish(conn, job, explanation.id)

    with pytest.raises(NotFound, match="no longer belongs to sleeper"):
        conclude(sleeper, late)
    with engine.begin() as conn, pytest.raises(NotFound):
        explanations.load_explanation(conn, late.id)
    conclude(successor, make.explanation(successor.exchange_id, ()))


def test_workers_that_race_share_the_jobs(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        ids = [add(conn, make) for _ in range(24)]
    barrier = threading.Barrier(6)

    def work(number: int) -> list[str]:
        barrier.wait()
        taken: list[str] = []
        while True:
            with engine.begin() as conn:
                job = outbox.claim(conn, f"worker-{number}")
            if job is None:
                return taken
            taken.append(job.id)

    with ThreadPoolExecutor(6) as threads:
        taken = Counter(job_id for jobs in threads.map(work, range(6)) for job_id in jobs)
    assert taken == Counter(ids)


def test_a_claim_that_is_not_committed_hides_its_job_only_meanwhile(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        first, second = add(conn, make), add(conn, make)
    with engine.connect() as crashing:
        transaction = crashing.begin()
        assert take(crashing).id == first
        if engine.dialect.name == "postgresql":  # on SQLite a second writer waits for the first to end
            with engine.begin() as conn:
                assert take(conn).id == second  # passed over, not waited for
                assert outbox.claim(conn, "w") is None
        transaction.rollback()
    with engine.begin() as conn:
        assert take(conn).id == first


def test_a_recipe_of_a_newer_version_fails_its_job_not_the_queue(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        add(conn, make)
        conn.execute(sa.update(table).values(recipe=make.recipe.to_json() | {"temperature": 2}))
        job = take(conn)
        with pytest.raises(SpexError, match=f"recipe of job {job.id} .*newer.*temperature"):
            job.recipe()


def test_a_job_needs_its_exchange(engine: sa.Engine, make: Make) -> None:
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as conn:
        outbox.enqueue(conn, exchange_id="nobody", recipe=make.recipe, why="drawn")
