"""How far a job is: for progress bars and for whoever waits."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from spex_proxy.store import outbox as jobs
from spex_proxy.store.columns import utc_now
from spex_proxy.store.tables import evidence_blocks, explanations, games, outbox


@dataclass(frozen=True, slots=True)
class JobProgress:
    """One job, and what the store knows of its work."""

    job: jobs.Job
    position: int | None
    """Place in the queue, 1 = next; None unless it is queued."""
    masks: int
    """Committed readings that it works with."""
    r2: float | None
    """Out-of-fold R2 of its explanation, or of the rounds that are answered so far."""


def job_progress(conn: sa.Connection, job_id: str, *, project: str) -> JobProgress:
    """Raises NotFound."""
    job = jobs.load_job(conn, job_id, project=project)
    if job.kind != "explain":
        return JobProgress(job, _position(conn, job) if job.state == "queued" else None, 0, None)
    if job.explanation_id is not None:
        made = conn.execute(
            sa.select(explanations.c.r2, explanations.c.cost_masks).where(
                explanations.c.project == project, explanations.c.id == job.explanation_id
            )
        ).one()
        return JobProgress(job, None, made.cost_masks, made.r2)
    position = _position(conn, job) if job.state == "queued" else None
    return JobProgress(job, position, _masks(conn, job), job.r2_so_far)


def _position(conn: sa.Connection, job: jobs.Job) -> int:
    """In the order of `outbox.claim`: jobs of all projects wait in one queue."""
    order = (outbox.c.priority, outbox.c.created_at, outbox.c.id)
    mine = (sa.literal(getattr(job, column.name), column.type) for column in order)
    sooner = sa.tuple_(*order) < sa.tuple_(*mine)
    is_ready = sa.or_(outbox.c.retry_at.is_(None), outbox.c.retry_at <= utc_now())
    query = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.state == "queued", is_ready, sooner)
    return int(conn.execute(query).scalar_one()) + 1


def _masks(conn: sa.Connection, job: jobs.Job) -> int:
    """Readings of the newest game of the job's exchange that is played as its recipe says.

    A job does not know its game before it has laid it; readings of an earlier job count, since they are used.
    """
    recipe = job.recipe_json
    query = (
        sa.select(games.c.id, games.c.players)
        .where(
            games.c.project == job.project,
            games.c.exchange_id == job.exchange_id,
            games.c.masker == recipe.get("masker"),
            games.c.value == recipe.get("value"),
        )
        .order_by(games.c.created_at.desc(), games.c.id.desc())
    )
    for game in conn.execute(query):
        if game.players.get("method") == recipe.get("segmenter"):
            asked = sa.select(sa.func.coalesce(sa.func.sum(evidence_blocks.c.n_masks), 0)).where(
                evidence_blocks.c.project == job.project, evidence_blocks.c.game_id == game.id
            )
            return int(conn.execute(asked).scalar_one())
    return 0
