"""Jobs: how far, stop, go on, and progress as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response
from pydantic import TypeAdapter

from spex_proxy.facts.records import JobRecord
from spex_proxy.store import steering
from spex_proxy.store.browse_jobs import job_progress
from spex_proxy.web import examples, replies
from spex_proxy.web.doors import Doors, JobId, Project
from spex_proxy.web.errors import Refused, documented
from spex_proxy.web.events import EventStream, Look, Places, one_line

_JSON: TypeAdapter[JobRecord] = TypeAdapter(JobRecord)


def make_router(doors: Doors) -> APIRouter:
    router = APIRouter(tags=["jobs"])
    _add_read(router, doors)
    _add_changes(router, doors)
    _add_events(router, doors, Places())
    return router


def _add_read(router: APIRouter, doors: Doors) -> None:
    @router.get("/jobs/{job_id}", responses={200: examples.JOB, **documented(404, 422)})
    def job(job_id: JobId, project: Project = None) -> JobRecord:
        """One job: its state, its place in the queue, how many masks are answered."""
        return _job(doors, job_id, project)


def _add_changes(router: APIRouter, doors: Doors) -> None:
    responses: dict[int | str, dict[str, Any]] = {200: examples.JOB, **documented(404, 409, 422)}

    def change(change: Callable[..., bool], what: str, job_id: str, project: str | None) -> JobRecord:
        has_changed = doors.write(change, job_id, project=project or doors.project)
        job = _job(doors, job_id, project)
        if not has_changed:
            raise Refused(409, "conflict", f"job {job_id} is {job.state}: it can't be {what}")
        return job

    @router.post("/jobs/{job_id}/cancel", responses=responses)
    def cancel(job_id: JobId, project: Project = None) -> JobRecord:
        """End it for good, at the next batch. What was measured stays, for the next job of the same game."""
        return change(steering.cancel, "cancelled", job_id, project)

    @router.post("/jobs/{job_id}/pause", responses=responses)
    def pause(job_id: JobId, project: Project = None) -> JobRecord:
        """Leave it alone from the next batch on, until it is resumed."""
        return change(steering.pause, "paused", job_id, project)

    @router.post("/jobs/{job_id}/resume", responses=responses)
    def resume(job_id: JobId, project: Project = None) -> JobRecord:
        """Back to the queue; it goes on from the last batch that was committed."""
        return change(steering.resume, "resumed", job_id, project)


def _add_events(router: APIRouter, doors: Doors, places: Places) -> None:
    # `itemSchema`, of OpenAPI 3.2, describes one event; a `schema` would have to describe them all as one text
    data = {"type": "string", "contentMediaType": "application/json", "description": "The job."}
    one = {"type": "object", "properties": {"event": {"enum": ["progress", "end"]}, "data": data}, "required": ["data"]}
    stream = {"itemSchema": one, "example": examples.EVENTS}
    responses: dict[int | str, dict[str, Any]] = {
        200: {
            "content": {"text/event-stream": stream},
            "description": "`progress` on every change, `end` when it is over; the data of both is the job. "
            "Comments keep the connection alive. Close it after `end`.",
        },
        **documented(404, 422, 429),
    }

    @router.get("/jobs/{job_id}/events", responses=responses, response_class=Response)
    async def events(job_id: JobId, project: Project = None) -> Response:
        """The job's progress as server-sent events."""
        await asyncio.to_thread(_job, doors, job_id, project)  # 404 now, rather than a stream of nothing
        return EventStream(lambda: _look(doors, job_id, project), places, doors.is_stopping)


def _job(doors: Doors, job_id: str, project: str | None) -> JobRecord:
    return replies.job_record(doors.read(job_progress, job_id, project=project or doors.project))


def _look(doors: Doors, job_id: str, project: str | None) -> Look:
    job = _job(doors, job_id, project)
    return Look(one_line(_JSON.dump_python(job, mode="json")), job.is_over)
