"""What people may ask of jobs, and what becomes of jobs that fail: the runner in this process, DBOS included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa

from spex_proxy.flows import batch as batch_flow
from spex_proxy.flows import durable, jobs
from spex_proxy.flows import explain as explain_flow
from spex_proxy.flows.jobs import Options, work
from spex_proxy.flows.work import Report, Retries
from spex_proxy.store import steering
from spex_proxy.store.connect import open_beside
from spex_proxy.store.outbox import Priority
from spex_proxy.store.tables import outbox as table
from tests.story.jobs.factory import MASKS, RECIPE, Factory
from tests.story.scripted_model import busy, refusing, waiting

pytestmark = pytest.mark.timeout(60)

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""What no database makes a difference to."""

QUICK = Options(concurrency=1, ttl_s=2, retries=Retries(tries=3, pause_s=0.2))


@asynccontextmanager
async def working(factory: Factory, options: Options = QUICK) -> AsyncIterator[list[Report]]:
    """A worker for as long as the block lasts; the ends of its jobs, as they come."""
    ends: list[Report] = []

    def on_report(report: Report) -> None:
        if report.progress is None:
            ends.append(report)

    stop = asyncio.Event()
    with factory.desk.parts() as parts:
        async with parts.servers:
            running = asyncio.create_task(work(parts, options, stop, on_report))
            try:
                yield ends
            finally:
                stop.set()
                await running


async def until(condition: Callable[[], object], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - most of what is waited for happens in a database
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_flow, "BUSY_PAUSE_S", 0.001)


def change(factory: Factory, function: Callable[..., object], *arguments: object) -> object:
    with factory.store.begin() as connection:
        return function(connection, *arguments)


# ---- cancel, pause, resume ----


async def test_a_running_job_is_cancelled_at_its_next_batch(factory: Factory) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    gate = factory.model.gate()
    factory.model.faults.extend([lambda reply: [reply], waiting(gate)])
    async with working(factory) as ends:
        await until(lambda: len(factory.model.asked) == 16)
        job = factory.job(exchange)
        assert change(factory, steering.cancel, job.id) is True
        gate.open()
        await until(lambda: ends)
        (other,) = await asyncio.to_thread(factory.ask, 1)  # the worker is free for others
        await until(lambda: factory.job(other).state == "done")
    job = factory.job(exchange)
    assert (job.state, job.reason) == ("cancelled", "cancelled")
    assert job.finished_at is not None
    assert len(factory.model.asked) == 16 + MASKS
    assert change(factory, steering.cancel, job.id) is False
    assert change(factory, steering.resume, job.id) is False
    factory.assert_adds_up(most_lost_batches=1)


async def test_a_queued_job_is_cancelled_before_it_starts(factory: Factory) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    change(factory, steering.cancel, factory.job(exchange).id)
    (other,) = await asyncio.to_thread(factory.ask, 1)
    async with working(factory):
        await until(lambda: factory.job(other).state == "done")
    assert factory.job(exchange).attempts == 0
    assert len(factory.model.asked) == MASKS


async def test_a_paused_job_keeps_what_was_answered_and_goes_on_when_resumed(factory: Factory) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    gate = factory.model.gate()
    factory.model.faults.extend([lambda reply: [reply], waiting(gate)])
    async with working(factory) as ends:
        await until(lambda: len(factory.model.asked) == 16)
        job = factory.job(exchange)
        assert change(factory, steering.pause, job.id) is True
        assert change(factory, steering.pause, job.id) is False
        gate.open()
        await until(lambda: ends)
        await asyncio.sleep(1)  # longer than a look at the outbox, and at lost jobs
        assert (factory.job(exchange).state, len(factory.model.asked)) == ("paused", 16)
        assert change(factory, steering.resume, job.id) is True
        await until(lambda: factory.job(exchange).state == "done")
    assert len(factory.model.asked) == MASKS, "the batch that was being answered is kept"
    factory.assert_adds_up()


async def test_a_job_that_is_paused_while_it_waits_does_not_start(factory: Factory) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    job = factory.job(exchange)
    change(factory, steering.pause, job.id)
    async with working(factory):
        await asyncio.sleep(1)
        assert factory.job(exchange).attempts == 0
        change(factory, steering.resume, job.id)
        await until(lambda: factory.job(exchange).state == "done")
    factory.assert_adds_up()


async def test_the_whole_queue_is_paused_and_resumed(factory: Factory) -> None:
    await asyncio.to_thread(factory.ask, 3)
    gate = factory.model.gate()
    factory.model.faults.extend([lambda reply: [reply], waiting(gate)])
    async with working(factory) as ends:
        await until(lambda: len(factory.model.asked) == 16)
        assert change(factory, steering.pause_queue) is True
        assert change(factory, steering.pause_queue) is False
        gate.open()
        await until(lambda: ends)
        await asyncio.sleep(1)
        assert factory.states() == {"queued": 3}
        assert len(factory.model.asked) == 16
        assert change(factory, steering.resume_queue) is True
        await until(lambda: factory.states() == {"done": 3})
    assert len(factory.model.asked) == 3 * MASKS
    factory.assert_adds_up()


# ---- the order ----


async def test_who_waits_comes_first_then_what_was_flagged_then_what_was_sampled(factory: Factory) -> None:
    await asyncio.to_thread(factory.ask, 5)
    order = (Priority.SAMPLED, Priority.FLAGGED, Priority.SAMPLED, Priority.ASKED, Priority.FLAGGED)
    with factory.store.begin() as connection:
        ids = connection.scalars(sa.select(table.c.id).order_by(table.c.created_at)).all()
        for job_id, priority in zip(ids, order, strict=True):
            connection.execute(sa.update(table).where(table.c.id == job_id).values(priority=int(priority)))
    async with working(factory) as ends:
        await until(lambda: len(ends) == 5)
    assert [end.job.id for end in ends] == [ids[3], ids[1], ids[4], ids[0], ids[2]]


# ---- failures ----


@on_sqlite
async def test_a_busy_server_is_tried_again_with_pauses_and_then_given_up(factory: Factory) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    factory.model.always = busy
    async with working(factory) as ends:
        await until(lambda: factory.job(exchange).state == "failed")
        await until(lambda: len(ends) == 3)  # a try is told of after the store knows it
    job = factory.job(exchange)
    assert "503" in str(job.reason)
    assert str(job.reason).endswith("(given up after 3 tries)")
    assert (job.attempts, job.failures, len(ends)) == (3, 2, 3)
    factory.assert_adds_up(most_lost_batches=99)


@on_sqlite
async def test_a_server_that_comes_back_costs_no_job(factory: Factory) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    factory.model.faults.extend([lambda reply: [reply]] + [busy] * batch_flow.BUSY_TRIES)
    async with working(factory):
        await until(lambda: factory.job(exchange).state == "done")
    assert factory.job(exchange).failures == 1
    factory.assert_adds_up(most_lost_batches=batch_flow.BUSY_TRIES)


@on_sqlite
async def test_what_can_not_work_fails_at_once_with_its_reason(factory: Factory) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    factory.model.always = refusing("This model does not support prompt_logprobs")
    async with working(factory):
        await until(lambda: factory.job(exchange).state == "failed")
    job = factory.job(exchange)
    assert (job.attempts, "400" in str(job.reason)) == (1, True)


@on_sqlite
async def test_a_bug_of_ours_ends_the_job_after_a_few_tries_and_not_the_worker(
    factory: Factory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    real = explain_flow.decide

    def fails(*arguments: object) -> object:
        raise RuntimeError("Alpha is quoted here")

    monkeypatch.setattr(explain_flow, "decide", fails)
    async with working(factory):
        await until(lambda: factory.job(exchange).state == "failed")
        monkeypatch.setattr(explain_flow, "decide", real)
        (other,) = await asyncio.to_thread(factory.ask, 1)
        await until(lambda: factory.job(other).state == "done")
    job = factory.job(exchange)
    assert str(job.reason).startswith("RuntimeError in test_control.py, line ")
    assert "Alpha" not in str(job.reason), "a reason outlives the content"
    assert job.attempts == 3
    assert "Alpha is quoted here" in caplog.text


@on_sqlite
async def test_a_recipe_of_a_newer_version_fails_its_job(factory: Factory) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    with factory.store.begin() as connection:
        connection.execute(sa.update(table).values(recipe=RECIPE.to_json() | {"temperature": 2}))
    async with working(factory):
        await until(lambda: factory.job(exchange).state == "failed")
    assert "temperature" in str(factory.job(exchange).reason)


# ---- the worker itself ----


async def test_work_can_be_started_again_in_one_process_and_leaves_the_loop_usable(factory: Factory) -> None:
    for count in (1, 2):
        await asyncio.to_thread(factory.ask, 1)
        async with working(factory):
            await until(lambda count=count: factory.states() == {"done": count})  # type: ignore[misc]
        assert await asyncio.to_thread(len, "four") == 4
    assert factory.alive() == set()


async def test_what_has_ended_long_ago_is_purged(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PURGE_S", 0.2)
    await asyncio.to_thread(factory.ask, 2)
    async with working(factory):
        await until(lambda: factory.states() == {"done": 2})
        assert len(runner_rows(factory, "workflow_status")) == 2
        monkeypatch.setattr(jobs, "KEEP_ENDED", timedelta(seconds=0.5))
        await until(lambda: runner_rows(factory, "workflow_status") == [])
    factory.assert_adds_up()


async def test_the_runner_is_given_ids_and_nothing_else(factory: Factory) -> None:
    (exchange,) = await asyncio.to_thread(factory.ask, 1)
    async with working(factory):
        await until(lambda: factory.states() == {"done": 1})
    told = str(runner_rows(factory, "workflow_status") + runner_rows(factory, "operation_outputs"))
    assert factory.job(exchange).id in told
    assert "Alpha" not in told
    assert "py_pickle" not in told
    assert len(told) < 5000


def runner_rows(factory: Factory, table_name: str) -> list[object]:
    engine = open_beside(factory.store, durable.SCHEMA)
    prefix = "" if factory.is_sqlite else f"{durable.SCHEMA}."
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT * FROM {prefix}{table_name}").all()
    engine.dispose()
    return list(rows)
