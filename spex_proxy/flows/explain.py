"""Story 2: one explanation.

exchange -> segmenter -> players                a new root span, LINKED to the request's span
repeat decide(recipe, evidence)                 pure: resuming after a crash is calling it again
   Ask(masks) -> masker -> probes -> scorer     one batch at a time, below production's priority
              -> value -> evidence block        committed per reply: never asked twice
   Fit        -> leave
one transaction: explanation, interactions, flags, job done
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from opentelemetry.trace import Span
from sqlalchemy import Connection

from spex_proxy.engine.conclude import Fit
from spex_proxy.engine.decide import Ask, decide
from spex_proxy.engine.indices import rank_interactions
from spex_proxy.facts.errors import CannotExplain, ClaimLost, SpexError, UpstreamBusy
from spex_proxy.facts.evidence import Block, Evidence, Masks, Probe, Replicates
from spex_proxy.facts.exchange import Exchange, TraceRef
from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.game import Game
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.probes import make_probes, probes_digest
from spex_proxy.flows.result import cost_of, flags_of
from spex_proxy.flows.table import Parts, Table, lay
from spex_proxy.flows.transactions import read, write
from spex_proxy.plug import answers
from spex_proxy.ports.scorers import Scored, Scorer
from spex_proxy.ports.telemetry import headers_of, record_failure, record_result, reference
from spex_proxy.store import exchanges, explanations, games, outbox

__all__ = ["Explaining", "Parts", "Progress", "answered", "batches", "explain", "explaining", "keep", "load_blocks"]

BUSY_TRIES = 4
BUSY_PAUSE_S = 0.5
"""A busy server is asked again after 0.5, 1, 2 s; then the job goes back to the queue, where it waits longer."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an explanation is. For people; nothing depends on it."""

    masks: int
    budget: int
    prompt_tokens: int
    note: str


async def explain(
    exchange_id: str,
    recipe: Recipe,
    parts: Parts,
    *,
    project: str,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Explanation:
    """Explain one stored exchange and store the result; evidence that is there is used, not asked again.

    Raises CannotExplain (final), UpstreamBusy (try the job later) or another SpexError (final).
    """
    async with explaining(exchange_id, recipe, parts, project=project, on_progress=on_progress) as one:
        while True:
            explanation = await one.advance()
            if explanation is not None:
                return explanation


@asynccontextmanager
async def explaining(
    exchange_id: str,
    recipe: Recipe,
    parts: Parts,
    *,
    project: str,
    job: outbox.Job | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> AsyncIterator[Explaining]:
    """The same in steps, for a `job`: what it keeps, it keeps only as long as its claim holds."""
    exchange = await read(parts.store, exchanges.load_exchange, exchange_id, project=project)
    request = await read(parts.store, exchanges.load_trace, exchange_id, project=project)
    with parts.telemetry.job_span(exchange, job.id if job else None, request) as span:
        try:
            yield Explaining(exchange, recipe, parts, span, job, on_progress)
        except SpexError as error:
            record_failure(span, type(error).__name__)
            raise


class Explaining:
    """One explanation under way. All of it is in the store: whoever begins anew goes on from there."""

    def __init__(
        self,
        exchange: Exchange,
        recipe: Recipe,
        parts: Parts,
        span: Span,
        job: outbox.Job | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._exchange = exchange
        self._recipe = recipe
        self._parts = parts
        self._span = span
        self._job = job
        self._on_progress = on_progress
        self._table: Table | None = None
        self._blocks: list[Block] = []

    async def advance(self) -> Explanation | None:
        """Ask one round of masks; or, if there is nothing more to ask, fit and store the explanation.

        Raises ClaimLost as soon as the job is no longer to be worked on here.
        """
        recipe, parts = self._recipe, self._parts
        if self._table is None:
            self._table = await lay(self._exchange, recipe, parts)
            self._blocks = await load_blocks(self._table.game, parts)
            self._on_progress(_progress(self._blocks, recipe, "preparing"))
        table = self._table
        evidence = Evidence.from_blocks(table.game.n_players, self._blocks)
        try:
            step = await asyncio.to_thread(decide, recipe, evidence)
        except ValueError as error:
            raise CannotExplain(f"the recipe makes no sense: {error}") from error
        if isinstance(step, Ask):
            await self._ask(table, step)
            return None
        explanation = _conclude(table, recipe, step, self._blocks, parts, reference(self._span))
        await write(parts.store, _save, explanation, self._job)
        record_result(self._span, explanation)
        return explanation

    async def _ask(self, table: Table, ask: Ask) -> None:
        """One round. Each answered batch is committed before the next is sent."""
        parts, headers = self._parts, headers_of(self._span)
        with parts.telemetry.round_span(ask.round, len(ask.masks)):
            for rows in batches(ask.masks, ask.replicates, table.scorer.batch_size):
                number, masks, replicates = len(self._blocks), ask.masks[rows], ask.replicates[rows]
                block = await answered(table, self._recipe, parts, number, masks, replicates, headers)
                is_new, state = await write(parts.store, keep, table.game, block, self._job, ask.r2)
                # where another job was faster, its readings stand
                self._blocks = [*self._blocks, block] if is_new else await load_blocks(table.game, parts)
                self._on_progress(_progress(self._blocks, self._recipe, ask.reason))
                if state != "running":
                    raise ClaimLost(f"the job is {state} now; what was measured so far is stored")


async def load_blocks(game: Game, parts: Parts) -> list[Block]:
    return list(await read(parts.store, games.load_blocks, game.id, project=game.project))


async def answered(
    table: Table,
    recipe: Recipe,
    parts: Parts,
    number: int,
    masks: Masks,
    replicates: Replicates,
    headers: Mapping[str, str],
) -> Block:
    """One batch: masks -> probes -> readings -> block."""
    probes = make_probes(table.game, table.tokens, table.salt, parts.plugins, masks)
    scored = await _score(table.scorer, probes, headers)
    logprobs = np.stack([reading.logprobs for reading in scored.readings])
    value = parts.plugins.value(recipe.value)
    return Block(
        number=number,
        masks=masks,
        replicates=replicates,
        values=answers.read(value, recipe.value, logprobs),
        logprobs=logprobs,
        prompt_tokens=scored.prompt_tokens,
        cached_tokens=scored.cached_tokens,
        seconds=scored.seconds,
        probes_digest=probes_digest(probes),
    )


async def _score(scorer: Scorer, probes: Sequence[Probe], headers: Mapping[str, str]) -> Scored:
    for attempt in range(BUSY_TRIES):
        try:
            return await scorer.score(probes, headers)
        except UpstreamBusy:
            if attempt == BUSY_TRIES - 1:
                raise
            await asyncio.sleep(BUSY_PAUSE_S * 2**attempt)
    raise AssertionError("unreachable: the loop returns or raises")


def _conclude(
    table: Table, recipe: Recipe, fit: Fit, blocks: Sequence[Block], parts: Parts, trace: TraceRef | None
) -> Explanation:
    """Fit and evidence as an explanation. It cites the game's first blocks: later jobs may add more."""
    provenance = parts.plugins.provenance(segmenter=recipe.segmenter, masker=recipe.masker, value=recipe.value)
    return Explanation(
        id=uuid.uuid4().hex,
        project=table.game.project,
        exchange_id=table.exchange.id,
        game_ids=(table.game.id,),
        target=table.game.target,
        recipe=replace(recipe, plugins=provenance),
        spectrum=fit.spectrum,
        fidelity=fit.fidelity,
        interactions=rank_interactions(fit.spectrum),
        how={**fit.how, "blocks": [len(blocks)]},
        verdict=fit.verdict,
        verdict_reason=fit.verdict_reason,
        cost=cost_of(blocks),
        flags=flags_of(fit.verdict, fit.verdict_reason, table.game.target),
        trace_id=trace.trace_id if trace else None,
        span_id=trace.span_id if trace else None,
        created_at=datetime.now(UTC),
    )


def batches(masks: Masks, replicates: Replicates, size: int) -> list[Any]:
    """Row numbers in batches, sorted so that neighbours share long prompt prefixes."""
    order = np.lexsort([replicates, *(~masks).T[::-1]])
    return [order[start : start + size] for start in range(0, len(order), size)]


def _progress(blocks: Sequence[Block], recipe: Recipe, note: str) -> Progress:
    masks = sum(len(block.values) for block in blocks)
    return Progress(masks, recipe.budget, sum(block.prompt_tokens for block in blocks), note)


def keep(
    connection: Connection, game: Game, block: Block, job: outbox.Job | None, r2: float | None
) -> tuple[bool, outbox.JobState]:
    """Keep an answered batch, if the job is still ours; whether it was new, and how the job is."""
    state = outbox.hold(connection, job, r2=r2) if job else "running"
    return games.append_block(connection, game.id, block, project=game.project), state


def _save(connection: Connection, explanation: Explanation, job: outbox.Job | None) -> None:
    if job is not None:
        known = outbox.load_job(connection, job.id, project=job.project)
        if known.explanation_id == explanation.id:
            return  # committed before, when the answer to the commit was lost
        outbox.hold(connection, job)
    explanations.save_explanation(connection, explanation)
    if job is not None:
        outbox.finish(connection, job, explanation.id)
