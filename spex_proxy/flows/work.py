"""One job, from its claim to its end: done, failed with a reason, or back in the queue.

| what happened                    | what becomes of the job                                     |
|----------------------------------|-------------------------------------------------------------|
| explained, re-tested, measured   | done                                                        |
| the server is busy or away       | queued again, after a pause that doubles; in the end failed |
| the store is away, full, locked  | the same, after `transactions` has tried for a while        |
| a bug of ours                    | the same, fewer times                                       |
| any other error of our own       | failed at once, with its reason                             |
| cancelled, paused, taken over    | not ours any more: nothing is written                       |
"""

from __future__ import annotations

import logging
import traceback
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from spex_proxy.facts.errors import CannotExplain, ClaimLost, PluginError, SpexError, UpstreamBusy
from spex_proxy.facts.explanation import Explanation
from spex_proxy.flows.explain import Explaining, Parts, Progress, explaining
from spex_proxy.flows.fill_table import run_table
from spex_proxy.flows.retest import run_retest
from spex_proxy.flows.transactions import may_pass, write
from spex_proxy.store import outbox
from spex_proxy.store.rows import clock

log = logging.getLogger(__name__)

MOST_BUGS = 3
"""Tries of a job that failed for a reason nobody foresaw: once it may have been the weather."""
LONGEST_PAUSE_S = 300.0
"""A model server that comes back is used again within five minutes."""

End = TypeVar("End")
Round = Callable[[], Awaitable[bool]]
Step = Callable[[str, Round], Awaitable[bool]]
"""Runs a part of a job and records that it was run: (name, part) -> what the part returns."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a failure that may pass is tried again."""

    tries: int = 8
    pause_s: float = 5.0
    """Before the second try; 10, 20, 40 ... before the next. The eight together wait 10 minutes, longer than
    a large model takes to load."""

    def pause(self, job: outbox.Job) -> timedelta:
        """Longer each time, and up to a quarter more or less, so that jobs which failed together part."""
        jitter = 0.75 + zlib.crc32(f"{job.id} {job.failures}".encode()) / 2**33
        return timedelta(seconds=min(self.pause_s * 2**job.failures, LONGEST_PAUSE_S) * jitter)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one job, or how far it is. For logs and progress bars."""

    job: outbox.Job
    progress: Progress | None = None
    explanation: Explanation | None = None
    error: str | None = None


async def directly(_name: str, part: Round) -> bool:
    """A step that is recorded nowhere."""
    return await part()


async def run_job(
    job: outbox.Job,
    parts: Parts,
    on_report: Callable[[Report], None],
    *,
    step: Step = directly,
    retries: Retries = Retries(),
) -> None:
    """Work on a claimed job until it ends or is no longer ours. Raises nothing but cancellation and the
    failure of a store that stays away: then the job is left as it is, for whoever looks after lost ones."""
    try:
        explanation = await _done(job, parts, on_report, step)
    except ClaimLost as lost:
        on_report(Report(job, error=str(lost)))
    except UpstreamBusy as error:
        on_report(Report(job, error=await _fail(job, parts, str(error), retries, retries.tries)))
    except PluginError as error:
        log.error("job %s: %s", job.id, error, exc_info=error)
        on_report(Report(job, error=await _fail(job, parts, str(error), retries)))
    except SpexError as error:
        on_report(Report(job, error=await _fail(job, parts, str(error), retries)))
    except Exception as error:
        is_store = may_pass(error)
        log.error("job %s failed for a reason that nobody foresaw", job.id, exc_info=error)
        most = retries.tries if is_store else MOST_BUGS
        on_report(Report(job, error=await _fail(job, parts, _in_words(error), retries, most)))
    else:
        on_report(Report(job, explanation=explanation))


async def _done(job: outbox.Job, parts: Parts, on_report: Callable[[Report], None], step: Step) -> Explanation | None:
    """What the job's kind says."""
    if job.kind == "explain":
        return await _explain(job, parts, on_report, step)
    if job.kind == "share":
        await _share(job, parts, on_report, step)
        return None
    run = {"retest": run_retest, "table": run_table}.get(job.kind)
    if run is None:
        raise CannotExplain(f"this version of spex-proxy knows no jobs of kind {job.kind!r}; a newer one made it")
    await _in_one_step(job.kind, lambda: run(job, parts), step)
    return None


async def _in_one_step(name: str, work: Callable[[], Awaitable[None]], step: Step) -> None:
    """What failed is raised outside: a step's record holds no errors."""
    ends: list[Exception] = []

    async def part() -> bool:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - see above
            ends.append(error)
        return not ends

    await step(name, part)
    for error in ends:
        raise error


async def _explain(job: outbox.Job, parts: Parts, on_report: Callable[[Report], None], step: Step) -> Explanation:
    """Round by round, each of them a step."""
    return await _in_steps("round", Explaining.advance, job, parts, on_report, step)


async def _share(job: outbox.Job, parts: Parts, on_report: Callable[[Report], None], step: Step) -> None:
    """Batch by batch, until there is nothing more to ask: who explains will find it all there."""
    await _in_steps("batch", Explaining.measure, job, parts, on_report, step)
    await write(parts.store, outbox.finish, job, None)


async def _in_steps(
    name: str,
    play: Callable[[Explaining], Awaitable[End | None]],
    job: outbox.Job,
    parts: Parts,
    on_report: Callable[[Report], None],
    step: Step,
) -> End:
    """`play` again and again, until something comes of it."""
    async with explaining(
        job.exchange_id,
        job.recipe(),
        parts,
        project=job.project,
        job=job,
        on_progress=lambda progress: on_report(Report(job, progress)),
    ) as one:
        ends: list[End | Exception] = []

        async def part() -> bool:
            """Whether there is more to do. What failed is raised outside: a step's record holds no errors."""
            try:
                end = await play(one)
            except Exception as error:  # noqa: BLE001 - see above
                ends.append(error)
            else:
                ends.extend([] if end is None else [end])
            return not ends

        while await step(name, part):
            pass
        (end,) = ends
        if isinstance(end, Exception):
            raise end
        return end


async def _fail(job: outbox.Job, parts: Parts, reason: str, retries: Retries, most: int = 1) -> str:
    """End a job, or queue it again after a pause; returns what is to be said of it."""
    pause = None if job.failures + 1 >= most else retries.pause(job)
    if pause is None and most > 1:
        reason = f"{reason} (given up after {job.failures + 1} tries)"
    try:
        await write(parts.store, _record, job, reason, pause)
    except ClaimLost as lost:  # another worker has the job by now, and what becomes of it there stands
        return str(lost)
    return reason


def _record(connection: Connection, job: outbox.Job, reason: str, pause: timedelta | None) -> None:
    """By the database's clock: the next worker may be on another machine."""
    retry_at = None if pause is None else clock(connection) + pause
    outbox.fail(connection, job, reason, final=pause is None, retry_at=retry_at)


def _in_words(error: Exception) -> str:
    """Without the error's own words, which may quote the content: a reason outlives it. A database quotes none."""
    if isinstance(error, DBAPIError) and may_pass(error):
        return f"the store failed: {str(error.orig).splitlines()[0]}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}: see the worker's log"
