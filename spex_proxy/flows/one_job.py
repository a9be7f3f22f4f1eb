"""One job that a person waits for: left to a worker where one lives, worked on from here where none does.

Whoever works on it from here beats as a worker does, under a name of its own. So one whose terminal was closed in
the middle is known to be gone, and the next one who waits takes its job over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from datetime import timedelta

from sqlalchemy import Connection

from spex_proxy.flows.chores import Chore, keep_doing
from spex_proxy.flows.explain import Parts
from spex_proxy.flows.transactions import read, write, write_once
from spex_proxy.flows.work import Retries, run_job
from spex_proxy.store import outbox, workers

HERE = "cli:"
"""How the names begin of those who take no job but the one they wait for."""
POLL_S = 0.3


async def see_through(job_id: str, parts: Parts, project: str, ttl: timedelta) -> None:
    """Return when the job is over, or paused. `ttl`: who was not heard of for so long is gone."""
    me = f"{HERE}{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    while True:
        now = await read(parts.store, outbox.load_job, job_id, project=project)
        if now.state not in ("queued", "running"):
            return
        if await read(parts.store, is_left, now, me, ttl):
            job = await write(parts.store, take, job_id, me, project, ttl)
            if job is not None:
                await _work(job, parts, me, ttl)
                continue
        await asyncio.sleep(POLL_S)


def is_left(conn: Connection, job: outbox.Job, me: str, ttl: timedelta) -> bool:
    """Whether no worker lives, nor anybody else who has the job."""
    live = {worker.id for worker in workers.live(conn, ttl)} - {me}
    return all(name.startswith(HERE) for name in live) and (job.state == "queued" or job.worker not in live)


def take(conn: Connection, job_id: str, me: str, project: str, ttl: timedelta) -> outbox.Job | None:
    """Claim it if it is left, from whoever had it and is gone; None if it is not, or may not run yet."""
    job = outbox.load_job(conn, job_id, project=project)
    if not is_left(conn, job, me, ttl):
        return None
    if job.state == "running":
        outbox.requeue_running(conn, job.worker, only={(project, job_id)})
    claimed = outbox.claim(conn, me, job_id=job_id)
    if claimed is not None:
        workers.beat(conn, me, concurrency=1)
    return claimed


async def _work(job: outbox.Job, parts: Parts, me: str, ttl: timedelta) -> None:
    """Until it ends, is no longer ours, or we are interrupted: then it is handed back."""
    heart = Chore(
        "heartbeat", ttl.total_seconds() / 4, lambda: write_once(parts.store, workers.beat, me, concurrency=1)
    )
    beating = asyncio.create_task(keep_doing((heart,)))
    try:
        await run_job(job, parts, lambda _report: None, retries=Retries(tries=1))
    finally:
        beating.cancel()
        await write_once(parts.store, _leave, me)


def _leave(conn: Connection, me: str) -> None:
    outbox.requeue_running(conn, me)
    workers.leave(conn, me)
