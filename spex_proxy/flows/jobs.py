"""The durable runner: every job in the outbox is worked on, by one worker at a time, until it ends.

    outbox row (id, dispatch) -> hand over -> DBOS queue -> claim -> run_job, one round a step -> the row ends
         ^                                                               |
         '---- another dispatch: failed for now, handed back, taken from a dead worker, lost by DBOS

The row is the truth. DBOS (flows/durable.py) starts what it was handed, most urgent first, so many at once.
What it says of the past is never believed: whoever wants to work claims the row, and whoever wants to keep
something holds the claim (store/outbox.py). So a job that is started twice is worked on once, and what
becomes of workers, of the DBOS database or of our own slips is put right by looking at the rows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine

from spex_proxy.flows.chores import Chore, keep_doing
from spex_proxy.flows.company import Company
from spex_proxy.flows.durable import Known, Runner, step
from spex_proxy.flows.explain import Parts
from spex_proxy.flows.transactions import read, write, write_once
from spex_proxy.flows.work import Report, Retries, run_job
from spex_proxy.ports.alone import alone
from spex_proxy.store import dispatch as handing
from spex_proxy.store import outbox, workers
from spex_proxy.store.dispatch import Dispatch

log = logging.getLogger(__name__)

HAND_OVER_S = 0.25
"""Between looks at the outbox; with DBOS's own poll a job starts within half a second."""
HANDED_OVER = 50
"""Jobs handed over, or looked after, in one go, most urgent first. The backlog stays in the outbox."""
MOST_TAKEOVERS = 3
"""Workers that may die with a job before the job is held to be the cause: twice is bad luck."""
PURGE_S = 600.0
KEEP_ENDED = timedelta(hours=1)
"""DBOS keeps what has ended for ever, and we need none of it: an hour is for people who look."""
STOP_S = 10.0
"""What has been cancelled ends at once; only a store that hangs takes longer."""
EMBEDDED = "embedded"
"""DBOS's name of the one worker on SQLite, so that it ends by itself what it had when it was killed."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker works."""

    concurrency: int
    """Jobs at once."""
    ttl_s: float = 20.0
    """A worker that has not been heard of for so long is dead. It is heard of four times in that time; its
    jobs are in other hands at most a quarter later, and `STOPPED_SECONDS` if it was stopped in a transaction."""
    retries: Retries = field(default_factory=Retries)


async def work(
    parts: Parts,
    options: Options,
    stop: asyncio.Event,
    on_report: Callable[[Report], None],
    also: Sequence[Chore] = (),
) -> None:
    """Work until `stop` is set; then hand back what is under way, with its committed evidence. `also`: other chores.

    Raises SettingsError if the store is a SQLite file that another process works on.
    """
    with _one_at_a_time(parts.store):
        worker = _Worker(parts, options, on_report, also)
        try:
            await worker.start()
            await stop.wait()
        finally:
            await worker.stop()


def _one_at_a_time(store: Engine) -> AbstractContextManager[None]:
    """SQLite has one worker: nobody but it may judge that it is dead."""
    if store.dialect.name != "sqlite":
        return nullcontext()
    path = Path(str(store.url.database))
    advice = "a SQLite store has one worker; stop that process, or keep the store in PostgreSQL to have many"
    return alone(path.with_name(f"{path.name}.worker"), advice)


class _Worker:
    """This process. Everything happens on the loop that `start` was called on."""

    def __init__(
        self, parts: Parts, options: Options, on_report: Callable[[Report], None], also: Sequence[Chore]
    ) -> None:
        self._parts = parts
        self._store = parts.store
        self._options = options
        self._on_report = on_report
        self._also = also
        self._id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._is_only = parts.store.dialect.name == "sqlite"
        self._executor = EMBEDDED if self._is_only else self._id
        self._runner = Runner(parts.store, self._executor, options.concurrency, self._run)
        self._company = Company()
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._chores: asyncio.Task[None] | None = None
        self._strange: set[Dispatch] = set()
        self._stopping = asyncio.Event()
        self._beaten_at = self._beating_since = float("-inf")

    async def start(self) -> None:
        """First the heartbeat, then the jobs: no job is ever in the hands of a worker that nobody has heard of."""
        await self._beat()
        await self._look_after_dead()
        await self._runner.start()
        tick = self._options.ttl_s / 4
        table = (
            Chore("heartbeat", tick, self._beat),
            Chore("hand over", HAND_OVER_S, self._hand_over),
            Chore("look after the dead", tick, self._look_after_dead),
            Chore("look after the lost", tick, self._look_after_lost),
            Chore("purge", PURGE_S, self._purge),
            *self._also,
        )
        self._chores = asyncio.create_task(keep_doing(table))
        log.info("worker %s takes %d job(s) at once", self._id, self._options.concurrency)

    async def stop(self) -> None:
        """The runner goes last: it takes the loop's threads with it."""
        self._stopping.set()
        tasks = [*self._running.values(), *([self._chores] if self._chores else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)
        try:
            await asyncio.wait_for(write_once(self._store, self._leave), STOP_S)
        except Exception as error:  # noqa: BLE001 - whatever it is: the others will take the jobs over
            log.warning("could not hand back what was under way: %s", error)
        await self._runner.stop()

    def _leave(self, connection: Connection) -> None:
        count = outbox.requeue_running(connection, self._id)
        workers.leave(connection, self._id)
        if count:
            log.info("handed %d job(s) back", count)

    # ---- one job ----

    async def _run(self, dispatch: Dispatch) -> str:
        """What DBOS starts. Returns what it records, which nobody reads but people."""
        key = (dispatch.project, dispatch.job_id)
        if (earlier := self._running.get(key)) is not None:  # paused and resumed, say, within one batch
            await asyncio.wait({earlier})
        if self._stopping.is_set():
            return await self._refuse(dispatch)
        task = self._running[key] = asyncio.create_task(self._claim_and_run(dispatch))  # known before it is claimed
        try:
            await task
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            return "handed back"
        except Exception as error:  # noqa: BLE001 - the store is away; the job is put right by looking after the lost
            log.error("job %s is left as it is: %s", dispatch.job_id, error)
            return "left"
        finally:
            if self._running.get(key) is task:
                del self._running[key]
        return "ended"

    async def _claim_and_run(self, dispatch: Dispatch) -> None:
        """A job whose worker died runs alone, and is not claimed before it may: were it not to blame for the
        death, it would otherwise be counted among the dead once more."""
        known = await read(self._store, outbox.load_job, dispatch.job_id, project=dispatch.project)
        async with self._company.alone() if known.takeovers else self._company.together():
            claim = {"job_id": dispatch.job_id, "dispatch": dispatch.number}
            job = await write(self._store, outbox.claim, self._id, **claim)
            if job is None:
                await self._refuse(dispatch)
                return
            await run_job(job, self._parts, self._on_report, step=step, retries=self._options.retries)

    async def _refuse(self, dispatch: Dispatch) -> str:
        """It was taken back, cancelled or paused meanwhile; if it is still meant, it needs another start."""
        await write_once(self._store, handing.redispatch, [dispatch])
        return "refused"

    # ---- chores ----

    async def _beat(self) -> None:
        await write_once(self._store, workers.beat, self._id, concurrency=self._options.concurrency)
        now = time.monotonic()
        if now - self._beaten_at > self._options.ttl_s / 2:  # stopped, or the store was away: so were the others
            self._beating_since = now
        self._beaten_at = now

    async def _hand_over(self) -> None:
        """To DBOS, then marked; dying in between only does it twice, which changes nothing."""
        given = await write_once(self._store, handing.undispatched, HANDED_OVER)
        for dispatch in given:
            await self._runner.enqueue(dispatch)
        if given:
            await write_once(self._store, handing.mark_dispatched, given)

    async def _look_after_dead(self) -> None:
        """Take the jobs of dead workers over. Nobody is judged by one who was away as well."""
        if self._is_only:
            for job in await write_once(self._store, self._take_over, {self._id}):
                log.warning("job %s was under way when its worker died; it is %s now", job.id, job.state)
            return
        now, ttl = time.monotonic(), self._options.ttl_s
        if now - self._beating_since < ttl or now - self._beaten_at > ttl / 2:
            return
        for job in await write_once(self._store, self._take_over_from_dead):
            log.warning("job %s was taken from a dead worker; it is %s now", job.id, job.state)

    def _take_over_from_dead(self, connection: Connection) -> tuple[outbox.Job, ...]:
        return self._take_over(connection, self._live(connection)) if workers.alone(connection) else ()

    def _take_over(self, connection: Connection, live: set[str]) -> tuple[outbox.Job, ...]:
        return handing.take_over(connection, live, most=MOST_TAKEOVERS)

    def _live(self, connection: Connection) -> set[str]:
        seen = workers.live(connection, timedelta(seconds=self._options.ttl_s))
        return {self._id, *(worker.id for worker in seen)}

    async def _look_after_lost(self) -> None:
        """Jobs that nobody works on and nobody will: under our name but not running here, or queued while DBOS
        does not know them (its database was deleted), has ended them, or has them with somebody who is dead."""
        in_our_name = await write_once(self._store, handing.running_of, self._id)
        if lost := in_our_name - self._running.keys():
            log.warning("%d job(s) under our name do not run here; they are queued again", len(lost))
            await write_once(self._store, outbox.requeue_running, self._id, only=lost)
        live = await write_once(self._store, self._live)
        waiting = await write_once(self._store, handing.dispatched, HANDED_OVER)
        known = await self._runner.look_up(waiting)
        strange = {one for one in waiting if not self._will_run(one, known.get(one), live)}
        # what DBOS has only just started here is not running yet, but it is at the next look
        again = strange & self._strange
        self._strange = strange - again
        if again:
            count = await write_once(self._store, handing.redispatch, again)
            log.warning("%d queued job(s) had been lost by the runner; they are handed over again", count)

    def _will_run(self, dispatch: Dispatch, known: Known | None, live: set[str]) -> bool:
        if known is None or known.state == "ended":
            return False
        if known.state == "running" and known.executor == self._executor:
            return (dispatch.project, dispatch.job_id) in self._running
        return known.state == "waiting" or known.executor in live

    async def _purge(self) -> None:
        """What DBOS and the heartbeats leave behind. What a dead worker ran counts as ended by now."""
        seen = await write_once(self._store, workers.live, KEEP_ENDED)
        lately = {self._executor, *(worker.id for worker in seen)}
        await self._runner.cancel_running(lambda executor: executor not in lately)
        purged = await self._runner.purge(KEEP_ENDED)
        forgotten = await write_once(self._store, workers.forget_dead, KEEP_ENDED)
        log.debug("purged %d ended workflows and %d heartbeats", purged, forgotten)
