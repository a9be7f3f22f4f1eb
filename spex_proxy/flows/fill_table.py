"""The 2^k table of chosen segments, measured where it is not yet: the answer's value with none of them, each, all.

What is asked here is evidence of the explanation's own game, in blocks behind those that the explanation cites:
it can be verified like them, and is never asked twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection

from spex_proxy.engine.subsets import choose, coalitions, unmeasured
from spex_proxy.facts.errors import CannotExplain, NotFound
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.records import FINAL_STATES
from spex_proxy.flows.admission import at_once
from spex_proxy.flows.batch import Memory, answered, in_order, known_of
from spex_proxy.flows.explain import Parts, go_on, keep, load_blocks
from spex_proxy.flows.lay import lay
from spex_proxy.flows.table import Table
from spex_proxy.flows.transactions import read, write
from spex_proxy.ports.gate.gate import Kept
from spex_proxy.ports.telemetry import headers_of
from spex_proxy.store import exchanges, explanations, games, outbox

WHY = "asked"


@dataclass(frozen=True, slots=True)
class AskedTable:
    """The job that measures what is missing."""

    job_id: str | None
    """None if nothing is."""
    is_new: bool


def ask_table(conn: Connection, explanation_id: str, players: Sequence[int], *, project: str) -> AskedTable:
    """Leave a job that asks the missing lines, ahead of all that was sampled; the one that is under way for the
    same players if there is one. Raises NotFound, ValueError for players that make no table, CannotExplain
    if the content was erased.
    """
    explanation = explanations.load_explanation(conn, explanation_id, project=project)
    chosen = choose(players, explanation.spectrum.n_players)
    blocks = games.load_blocks(conn, explanation.game_ids[0], project=project)
    evidence = Evidence.from_blocks(explanation.spectrum.n_players, blocks)
    if not len(unmeasured(coalitions(chosen, evidence.n_players), evidence)):
        return AskedTable(None, is_new=False)
    if explanation.exchange_id is None:
        raise CannotExplain("this explanation belongs to no exchange, so nothing more can be asked")
    try:
        exchanges.load_salt(conn, explanation.exchange_id, project=project)
    except NotFound as error:
        raise CannotExplain(f"nothing more can be asked: {error}") from error
    task = {"explanation_id": explanation_id, "players": list(chosen)}
    known = latest(conn, explanation.exchange_id, task, project)
    if known is not None and known.state not in FINAL_STATES:
        return AskedTable(known.id, is_new=False)
    trace = exchanges.load_trace(conn, explanation.exchange_id, project=project)
    job_id = outbox.enqueue(
        conn, exchange_id=explanation.exchange_id, recipe=explanation.recipe, why=WHY,
        priority=outbox.Priority.ASKED, traceparent=trace.traceparent() if trace else None, project=project,
        kind="table", task=task,
    )  # fmt: skip
    return AskedTable(job_id, is_new=True)


def latest(conn: Connection, exchange_id: str, task: Mapping[str, Any], project: str) -> outbox.Job | None:
    """The newest job that was to fill this table."""
    jobs = outbox.jobs_of_exchange(conn, exchange_id, project=project, kind="table")
    return next((job for job in jobs if dict(job.task or {}) == task), None)


async def run_table(job: outbox.Job, parts: Parts) -> None:
    """Ask what is missing, batch by batch, each committed before the next. Raises as `explain` does."""
    task = job.task or {}
    explanation_id, chosen = str(task.get("explanation_id")), tuple(task.get("players", ()))
    exchange = await read(parts.store, exchanges.load_exchange, job.exchange_id, project=job.project)
    explanation = await read(parts.store, explanations.load_explanation, explanation_id, project=job.project)
    request = await read(parts.store, exchanges.load_trace, job.exchange_id, project=job.project)
    with parts.telemetry.job_span(exchange, job.id, request) as span:
        table = await lay(exchange, explanation.recipe, parts)
        try:
            await _fill(job, parts, explanation, choose(chosen, table.game.n_players), table, headers_of(span))
        finally:
            await asyncio.to_thread(table.close)

    def end(conn: Connection) -> None:
        if outbox.load_job(conn, job.id, project=job.project).state != "done":
            outbox.hold(conn, job)
            outbox.finish(conn, job, explanation_id)

    await write(parts.store, end)
    return


async def _fill(
    job: outbox.Job,
    parts: Parts,
    explanation: Explanation,
    chosen: tuple[int, ...],
    table: Table,
    headers: Mapping[str, str],
) -> None:
    if table.game.id != explanation.game_ids[0]:
        raise CannotExplain(
            "the model server is not the one that this explanation's evidence came from (another version, model "
            "or segmenter), so its values can't stand in one table with these: explain the exchange anew"
        )
    wanted = coalitions(chosen, table.game.n_players)
    blocks = await load_blocks(table.game, parts)
    memory = Memory(await asyncio.to_thread(known_of, table, parts, blocks))
    while len(missing := unmeasured(wanted, Evidence.from_blocks(table.game.n_players, blocks))):
        once = np.zeros(len(missing), dtype=np.int64)
        rows = in_order(missing, once)[: at_once(table, parts)]
        asked = missing[rows], once[rows]
        block = await answered(table, explanation.recipe, parts, len(blocks), *asked, headers, memory)
        if isinstance(block, Kept):
            go_on(await write(parts.store, outbox.hold, job))
            continue
        is_new, state = await write(parts.store, keep, table.game, block, job, None)
        go_on(state)
        # where another job was faster, what it left out is still missing
        blocks = [*blocks, block] if is_new else await load_blocks(table.game, parts)
