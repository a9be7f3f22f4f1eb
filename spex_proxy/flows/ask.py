"""A person asks for an explanation, now. Nothing is explained here: a job is left in the outbox."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import Connection

from spex_proxy.facts.errors import CannotExplain, NotFound
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.records import FINAL_STATES
from spex_proxy.store import exchanges, outbox

WHY = "asked"

_KEYS = uuid.UUID("7b0c1f9e-5a53-4c8e-9d6e-5370657870a1")
"""Namespace of the job ids that are made from idempotency keys."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The job that answers the question."""

    job_id: str
    is_new: bool
    """False if the same had been asked before."""
    fits: bool = True
    """False if the key was used before to ask for something else; then nothing was done."""


def ask(conn: Connection, exchange_id: str, recipe: Recipe, *, project: str, key: str | None = None) -> Asked:
    """Leave a job for a stored exchange, ahead of all that was sampled.

    Asking again gives the same job: with the same `key` always, without one for as long as the first
    is not over. Raises NotFound, or CannotExplain if the content was erased.
    """
    trace = exchanges.load_trace(conn, exchange_id, project=project)
    try:
        exchanges.load_salt(conn, exchange_id, project=project)
    except NotFound as error:
        raise CannotExplain(f"there is nothing left to explain: {error}") from error
    wanted = recipe.to_json()
    job_id = str(uuid.uuid5(_KEYS, "\n".join((project, exchange_id, key)))) if key else None
    for job in outbox.jobs_of_exchange(conn, exchange_id, project=project):
        is_same = dict(job.recipe_json) == wanted
        if job_id is not None and job.id == job_id:
            return Asked(job.id, is_new=False, fits=is_same)
        if job_id is None and is_same and job.why == WHY and job.state not in FINAL_STATES:
            return Asked(job.id, is_new=False)
    made = outbox.enqueue(
        conn,
        exchange_id=exchange_id,
        recipe=recipe,
        why=WHY,
        priority=outbox.Priority.ASKED,
        traceparent=trace.traceparent() if trace else None,
        project=project,
        job_id=job_id,
    )
    return Asked(made, is_new=True)
