"""The worker: take a job from the outbox, explain, store; for ever, one at a time.

A plain loop. A job that was running when its worker died is taken up again at the
next start, and continues from the evidence that is already committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from spex_proxy.facts.errors import SpexError, UpstreamBusy
from spex_proxy.facts.explanation import Explanation
from spex_proxy.flows.explain import Parts, Progress, explain
from spex_proxy.flows.transactions import write
from spex_proxy.store import outbox

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Pause between looks at an empty outbox."""
MOST_ATTEMPTS = 5
"""A job that found the server busy so often ends as failed, with that reason."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one job, or how far it is. For logs and progress bars."""

    job: outbox.Job
    progress: Progress | None = None
    explanation: Explanation | None = None
    error: str | None = None


async def work(parts: Parts, worker: str, stop: asyncio.Event, on_report: Callable[[Report], None]) -> None:
    """Work until `stop` is set. A failing store only pauses the loop; nothing is lost."""
    is_recovered = False
    while not stop.is_set():
        try:
            if not is_recovered:
                await write(parts.store, outbox.requeue_running, worker)
                is_recovered = True
            job = await write(parts.store, outbox.claim, worker)
            if job is not None:
                await _until(stop, job, parts, on_report)
                continue
        except SQLAlchemyError as error:
            log.error("the store can't be used, trying again: %s", error)
            is_recovered = False  # a job may have been left as running
        await _pause(stop)


async def run_job(job: outbox.Job, parts: Parts, on_report: Callable[[Report], None]) -> None:
    """One job, to its end: done, failed with a reason, or queued again."""
    try:
        explanation = await explain(
            job.exchange_id,
            job.recipe(),
            parts,
            project=job.project,
            job=job,
            on_progress=lambda progress: on_report(Report(job, progress)),
        )
    except UpstreamBusy as error:
        await write(parts.store, outbox.fail, job, str(error), final=job.attempts >= MOST_ATTEMPTS)
        on_report(Report(job, error=str(error)))
    except SpexError as error:
        await write(parts.store, outbox.fail, job, str(error), final=True)
        on_report(Report(job, error=str(error)))
    except (SQLAlchemyError, asyncio.CancelledError):
        raise
    except Exception as error:  # a bug of ours ends one job, loudly, and not the worker
        log.exception("job %s failed for a reason that nobody foresaw", job.id)
        reason = f"{type(error).__name__}: {error}"
        await write(parts.store, outbox.fail, job, reason, final=True)
        on_report(Report(job, error=reason))
    else:
        on_report(Report(job, explanation=explanation))


async def _until(stop: asyncio.Event, job: outbox.Job, parts: Parts, on_report: Callable[[Report], None]) -> None:
    """Run a job; when told to stop, hand it back with its committed evidence."""
    running = asyncio.create_task(run_job(job, parts, on_report))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if running.done():
        running.result()
        return
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await write(parts.store, outbox.requeue_running, job.worker)


async def _pause(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), POLL_S)

