"""Story 2: one explanation.

exchange -> segmenter -> players                a new root span, LINKED to the request's span
repeat decide(recipe, evidence)                 pure: resuming after a crash is calling it again
   Ask(masks) -> masker -> probes
              -> gate -> scorer                 one batch at a time, when production leaves room, below its priority
              -> value -> evidence block        committed per reply: never asked twice
   Fit        -> leave
one transaction: explanation, interactions, flags, job done
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import numpy as np
from opentelemetry.trace import Span
from sqlalchemy import Connection

from spex_proxy.engine.conclude import Fit
from spex_proxy.engine.decide import Ask, decide, keys, settle
from spex_proxy.engine.indices import rank_interactions
from spex_proxy.facts.errors import CannotExplain, ClaimLost, SpexError
from spex_proxy.facts.evidence import Block, Evidence, Masks
from spex_proxy.facts.exchange import Exchange, TraceRef
from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.game import Game
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.acting import Orders, watched
from spex_proxy.flows.admission import at_once
from spex_proxy.flows.batch import Memory, answered, known_of
from spex_proxy.flows.finer import follow_up
from spex_proxy.flows.lay import lay
from spex_proxy.flows.probes import evidence_of
from spex_proxy.flows.result import cost_of, flags_of
from spex_proxy.flows.share import Share
from spex_proxy.flows.table import Parts, Table
from spex_proxy.flows.transactions import read, write
from spex_proxy.flows.written_game import recipe_of
from spex_proxy.plug.kinds import Seen
from spex_proxy.ports.gate.gate import Kept
from spex_proxy.ports.telemetry import headers_of, record_failure, record_result, reference
from spex_proxy.store import exchanges, explanations, games, outbox

__all__ = ["Explaining", "Parts", "Progress", "explain", "explaining", "go_on", "keep", "load_blocks"]


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
        one = Explaining(exchange, recipe_of(exchange, recipe), parts, span, job, on_progress)
        try:
            yield one
        except SpexError as error:
            record_failure(span, type(error).__name__)
            raise
        finally:
            await one.close()


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
        self._memory = Memory({})
        self._is_measured = False
        self._share = Share.of_job(job)

    async def advance(self) -> Explanation | None:
        """Ask one round of masks; or, if there is nothing more to ask, fit and store the explanation.

        Raises ClaimLost as soon as the job is no longer to be worked on here.
        """
        fit = await self.measure()
        if fit is None:
            return None
        assert self._table is not None
        fit = replace(fit, how={**fit.how, "unanswered": asdict(self._memory.unanswered)})
        parts, span = self._parts, self._span
        explanation = _conclude(self._table, self._recipe, fit, self._blocks, parts, reference(span))
        await write(parts.store, _save, explanation, self._job, self._exchange, parts.orders)
        record_result(span, explanation)
        return explanation

    async def measure(self) -> Fit | None:
        """Ask one round of masks, of a game that is shared one batch; or what there is gives this. Raises ClaimLost."""
        recipe, parts = self._recipe, self._parts
        if self._table is None:
            self._table = await lay(self._exchange, recipe, parts)
            self._blocks = await load_blocks(self._table.game, parts)
            self._memory.known = await asyncio.to_thread(known_of, self._table, parts, self._blocks)
            self._is_measured = await read(parts.store, _is_measured, self._table.game, recipe)
            self._on_progress(_progress(self._blocks, recipe, "preparing"))
        elif self._share.of > 1:
            self._blocks = await load_blocks(self._table.game, parts)
        table = self._table
        evidence = evidence_of(table.game, table.target, self._blocks, parts.plugins)
        try:
            step = await asyncio.to_thread(_next, recipe, evidence, table.recorded, self._is_measured)
        except ValueError as error:
            raise CannotExplain(f"the recipe makes no sense: {error}") from error
        if isinstance(step, Ask):
            await self._ask(table, step)
            return None
        return step

    async def close(self) -> None:
        if self._table is not None:
            await asyncio.to_thread(self._table.close)

    async def _ask(self, table: Table, ask: Ask) -> None:
        """One round. Each answered batch is committed before the next is sent."""
        parts, headers = self._parts, headers_of(self._span)
        left = self._share.order(ask.masks, ask.replicates)
        if self._share.of > 1:
            left = left[: at_once(table, parts)]  # then it is looked at what the others have
        with parts.telemetry.round_span(ask.round, len(ask.masks)):
            while len(left):
                rows, number = left[: at_once(table, parts)], len(self._blocks)
                asked = ask.masks[rows], ask.replicates[rows]
                block = await answered(table, self._recipe, parts, number, *asked, headers, self._memory)
                if isinstance(block, Kept):
                    await self._wait(block, ask)
                    continue
                left = left[len(rows) :]  # of these, what the server left out is asked in the next round
                kept = keep_beside if self._share.of > 1 else keep
                is_new, state = await write(parts.store, kept, table.game, block, self._job, ask.r2)
                # where another job was faster, its readings stand
                self._blocks = [*self._blocks, block] if is_new else await load_blocks(table.game, parts)
                self._on_progress(_progress(self._blocks, self._recipe, ask.reason))
                go_on(state)

    async def _wait(self, kept: Kept, ask: Ask) -> None:
        """Kept out. A person may pause or cancel meanwhile, and another worker may have taken the job over."""
        self._on_progress(_progress(self._blocks, self._recipe, f"waiting: {kept.why}"))
        if self._job is not None:
            go_on(await write(self._parts.store, outbox.hold, self._job, r2=ask.r2))


async def load_blocks(game: Game, parts: Parts) -> list[Block]:
    return list(await read(parts.store, games.load_blocks, game.id, project=game.project))


def _next(recipe: Recipe, evidence: Evidence, recorded: Masks | None, is_measured: bool) -> Ask | Fit:
    """What to ask. Where only some coalitions can be answered, those, and no design's."""
    if is_measured:
        return settle(recipe, evidence, "measured for another target")
    if recorded is None:
        return decide(recipe, evidence)
    once = np.zeros(len(recorded), dtype=np.int64)
    known = set(keys(evidence.masks, evidence.replicates))
    missing = np.asarray([key not in known for key in keys(recorded, once)], dtype=np.bool_)
    if missing.any():
        return Ask(recorded[missing], once[missing], 0, "what was measured elsewhere")
    return settle(recipe, evidence, "all that was measured elsewhere")


def _is_measured(connection: Connection, game: Game, recipe: Recipe) -> bool:
    """Whether another target of the same game was explained by an otherwise equal recipe: then all that this recipe
    would have asked is there, and nothing more is asked. Who wants more masks for it says so with a larger budget."""
    return any(
        other.target != recipe.target and replace(other, target=recipe.target, plugins=recipe.plugins) == recipe
        for other in explanations.recipes_of_game(connection, game.id, project=game.project)
    )


def _conclude(
    table: Table, recipe: Recipe, fit: Fit, blocks: Sequence[Block], parts: Parts, trace: TraceRef | None
) -> Explanation:
    """Fit and evidence as an explanation. It cites the game's first blocks: later jobs may add more."""
    provenance = parts.plugins.provenance(segmenter=recipe.segmenter, masker=recipe.masker, value=recipe.value)
    explanation = Explanation(
        id=uuid.uuid4().hex,
        project=table.game.project,
        exchange_id=table.exchange.id,
        game_ids=(table.game.id,),
        target=table.target,
        recipe=replace(recipe, plugins=provenance),
        spectrum=fit.spectrum,
        fidelity=fit.fidelity,
        interactions=rank_interactions(fit.spectrum),
        how={**fit.how, "blocks": [len(blocks)]},
        verdict=fit.verdict,
        verdict_reason=fit.verdict_reason,
        cost=cost_of(blocks),
        flags=flags_of(fit.verdict, fit.verdict_reason, table.target),
        trace_id=trace.trace_id if trace else None,
        span_id=trace.span_id if trace else None,
        created_at=datetime.now(UTC),
    )
    if parts.orders is None:
        return explanation
    flags, looked = watched(parts.orders, Seen(table.exchange, explanation, table.game.players))
    return replace(explanation, flags=(*explanation.flags, *flags), how={**explanation.how, "looked": looked})


def go_on(state: outbox.JobState) -> None:
    """Raises ClaimLost if the job is no longer to be worked on."""
    if state != "running":
        raise ClaimLost(f"the job is {state} now; what was measured so far is stored")


def _progress(blocks: Sequence[Block], recipe: Recipe, note: str) -> Progress:
    masks = sum(len(block.values) for block in blocks)
    return Progress(masks, recipe.budget, sum(block.prompt_tokens for block in blocks), note)


def keep(
    connection: Connection, game: Game, block: Block, job: outbox.Job | None, r2: float | None
) -> tuple[bool, outbox.JobState]:
    """Keep an answered batch, if the job is still ours; whether it was new, and how the job is."""
    state = outbox.hold(connection, job, r2=r2) if job else "running"
    return games.append_block(connection, game.id, block, project=game.project), state


def keep_beside(
    connection: Connection, game: Game, block: Block, job: outbox.Job | None, r2: float | None
) -> tuple[bool, outbox.JobState]:
    """The same where others measure too: under the next free number, since theirs are other masks."""
    is_new, state = keep(connection, game, block, job, r2)
    while not is_new:
        block = replace(block, number=games.next_number(connection, game.id, project=game.project))
        is_new = games.append_block(connection, game.id, block, project=game.project)
    return False, state


def _save(
    connection: Connection,
    explanation: Explanation,
    job: outbox.Job | None,
    exchange: Exchange,
    orders: Orders | None,
) -> None:
    if job is not None:
        known = outbox.load_job(connection, job.id, project=job.project)
        if known.explanation_id == explanation.id:
            return  # committed before, when the answer to the commit was lost
        outbox.hold(connection, job)
    explanations.save_explanation(connection, explanation)
    if exchange.kind != "game":
        follow_up(connection, explanation, job)
    if job is not None:
        outbox.finish(connection, job, explanation.id)
    if orders is not None:
        names = {flag.name for flag in explanation.flags}
        orders.on_flags(connection, exchange, names, explanation.id)
