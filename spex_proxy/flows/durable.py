"""The one file that knows DBOS: a queue of ids, each of which is run, step by step.

DBOS keeps ids and nothing else. It is never asked what became of a job (the store knows), and nothing
breaks if its database is deleted while the workers are stopped (flows/jobs.py hands the ids over again).

Traps that are closed here, each measured:

- its default version is a hash of the code, and work of another version never runs: a constant;
- its default serializer executes what stands in the database: JSON;
- on SQLite its own engine keeps a journal mode in which readers and writers lock each other out, and on
  PostgreSQL it takes "connection is bad" for a bug: the engines are ours (store/connect.py);
- it gives the event loop an executor and then shuts it down: the loop gets a fresh one at the end;
- `launch` decides by where it is called which loop the jobs run on: it is called on ours.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from sqlalchemy import Engine

from spex_proxy.facts.errors import ClaimLost
from spex_proxy.store.connect import open_beside
from spex_proxy.store.dispatch import Dispatch

QUEUE = WORKFLOW = "explain"
VERSION = "jobs-1"
"""Changes only when an explanation's steps do, which needs a plan for what is under way: see docs/jobs.md."""
SCHEMA = "jobs"
"""On PostgreSQL, inside the store's database; on SQLite a file of its own beside the store's."""
POLL_S = 0.25
"""Between looks at the queue: 2 to 5 % of a core when idle, for a start within a quarter of a second."""
SWEEP = 500
"""Rows that are cancelled or deleted in one go."""

_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")

Result = TypeVar("Result")
Run = Callable[[Dispatch], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Known:
    """What the runner knows of one id."""

    state: Literal["waiting", "running", "ended"]
    executor: str
    """Who runs it; meaningful for `running`."""


def name_of(dispatch: Dispatch) -> str:
    """The id under which a dispatch is run once, however often it is handed over."""
    return f"{dispatch.job_id}.{dispatch.number}" if dispatch.number else dispatch.job_id


async def step(name: str, function: Callable[[], Awaitable[Result]]) -> Result:
    """Run a part of a job whose end is recorded. `function` returns JSON and raises nothing but cancellation."""
    import dbos  # noqa: PLC0415 - see Runner.start
    from dbos import error as dbos_error  # noqa: PLC0415

    async def call() -> Result:
        return await function()

    try:
        return await dbos.DBOS.run_step_async({"name": name}, call)
    except (dbos_error.DBOSWorkflowCancelledError, dbos_error.DBOSWorkflowConflictIDError) as error:
        raise ClaimLost(f"this worker was taken for dead: {error}") from error


class Runner:
    """Runs what is enqueued by any worker on the same store, `concurrency` at once in this process."""

    def __init__(self, store: Engine, executor: str, concurrency: int, run: Run) -> None:
        self._store = store
        self._executor = executor
        self._concurrency = concurrency
        self._run = run
        self._engine: Engine | None = None
        self._dbos: Any = None

    async def start(self) -> None:
        """Call on the loop that the jobs are to run on. One runner a process."""
        import dbos  # noqa: PLC0415 - 0.4 s and 20 MB that only workers should pay

        _quieten(logging.getLogger("dbos"))

        async def run(project: str, job_id: str, number: int, priority: int) -> str:
            return await self._run(Dispatch(project, job_id, number, priority))

        dbos.DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(run)
        self._engine = await asyncio.to_thread(open_beside, self._store, SCHEMA)
        self._dbos = dbos.DBOS
        dbos.DBOS(
            config={
                "name": "spex-proxy",
                "system_database_url": self._engine.url.render_as_string(hide_password=False),
                "system_database_engine": self._engine,
                "dbos_system_schema": SCHEMA,
                "executor_id": self._executor,
                "application_version": VERSION,
                "serializer": dbos.DBOSPortableJSONSerializer(),
                "use_listen_notify": False,  # nothing here waits for a notification
                "enable_otlp": False,  # our own span is linked to the request's; DBOS would make a child of it
                "log_level": "WARNING",
            }
        )
        dbos.DBOS.launch()
        await dbos.DBOS.register_queue_async(
            QUEUE,
            worker_concurrency=self._concurrency,
            polling_interval_sec=POLL_S,
            on_conflict="always_update",
        )

    async def stop(self) -> None:
        """Forget everything at once; what still runs is cut off. The loop can be used on."""
        if self._dbos is None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(
                ThreadPoolExecutor(1), lambda: self._dbos.destroy(destroy_registry=True)
            )
        finally:
            self._dbos = None
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
            if self._engine is not None:
                self._engine.dispose()

    async def enqueue(self, dispatch: Dispatch) -> None:
        """Have it run, by whichever worker is free first. Doing this again changes nothing."""
        options = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": name_of(dispatch),
            "priority": dispatch.priority,
            "app_version": VERSION,
        }
        arguments = (dispatch.project, dispatch.job_id, dispatch.number, dispatch.priority)
        await self._dbos.enqueue_workflow_with_options_async(options, *arguments)

    async def look_up(self, dispatches: Collection[Dispatch]) -> dict[Dispatch, Known]:
        """What is known of these; those that it does not know are missing."""
        named = {name_of(dispatch): dispatch for dispatch in dispatches}
        found = await self._list(workflow_ids=list(named)) if named else []
        return {named[status.workflow_id]: _known(status) for status in found}

    async def cancel_running(self, is_dead: Callable[[str], bool]) -> int:
        """End what is recorded as running in an executor that `is_dead`; returns how many there were."""
        running = await self._list(status="PENDING", limit=SWEEP)
        dead = [status.workflow_id for status in running if is_dead(status.executor_id or "")]
        if dead:
            await self._dbos.cancel_workflows_async(dead)
        return len(dead)

    async def purge(self, older_than: timedelta) -> int:
        """Delete what ended long ago, all of it; returns how many there were. The package itself keeps everything."""
        count = 0
        before = (datetime.now(UTC) - older_than).isoformat()
        while True:
            ended = await self._list(status=list(_ENDED), completed_before=before, limit=SWEEP)
            if not ended:
                return count
            await self._dbos.delete_workflows_async([status.workflow_id for status in ended])
            count += len(ended)

    async def _list(self, **options: Any) -> list[Any]:
        found: list[Any] = await self._dbos.list_workflows_async(load_input=False, load_output=False, **options)
        return found


class _OnceAMinute(logging.Filter):
    """A database that is away is worth one line a minute and thread, not four a second with a traceback each."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage().splitlines()[0]
        kind, now = line[:40], time.monotonic()
        if "task cancelled for workflow" in line or now - self._said.get(kind, float("-inf")) < 60:
            return False
        self._said[kind] = now
        record.msg, record.args = line, ()
        return True


def _quieten(log: logging.Logger) -> None:
    if not log.handlers:  # else it adds one of its own, past our format
        log.addHandler(logging.NullHandler())
        log.addFilter(_OnceAMinute())


def _known(status: Any) -> Known:
    if status.status in _ENDED:
        return Known("ended", "")
    return Known("running" if status.status == "PENDING" else "waiting", status.executor_id or "")
