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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from opentelemetry.trace import Span
from sqlalchemy import Engine

from spex_proxy.engine.conclude import Fit
from spex_proxy.engine.decide import Ask, decide
from spex_proxy.engine.indices import rank_interactions
from spex_proxy.facts.errors import CannotExplain, SpexError, UpstreamBusy
from spex_proxy.facts.evidence import Block, Evidence, Masks, Probe, Replicates
from spex_proxy.facts.exchange import Exchange, Target, TokenizedExchange, TraceRef
from spex_proxy.facts.explanation import Cost, Explanation, Flag
from spex_proxy.facts.game import Game
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.probes import game_digest, make_probes, probes_digest
from spex_proxy.flows.tokenize import tokenize
from spex_proxy.flows.transactions import read, write
from spex_proxy.plug.load import Plugins, call
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.scorers import Scored, Scorer
from spex_proxy.ports.scorers.completions import CompletionsScorer
from spex_proxy.ports.telemetry import Telemetry, headers_of, record_failure, record_result, reference
from spex_proxy.store import exchanges, explanations, games, outbox
from spex_proxy.wire.tokens import align

BUSY_TRIES = 6
BUSY_PAUSE_S = 0.5
"""A busy server is asked again after 0.5, 1, 2, 4, 8 s; then the job goes back to the queue."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an explanation is made with. Built once by wiring, shared by all jobs of a worker."""

    store: Engine
    server: ModelServer
    plugins: Plugins
    telemetry: Telemetry
    priority: int
    """vLLM priority of our requests; production's is 0, larger is less urgent."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an explanation is. For people; nothing depends on it."""

    masks: int
    budget: int
    prompt_tokens: int
    note: str


@dataclass(frozen=True, slots=True)
class Table:
    """The game laid out for play: everything that stays the same while masks are asked."""

    exchange: Exchange
    tokens: TokenizedExchange
    salt: bytes
    game: Game
    scorer: Scorer


async def explain(
    exchange_id: str,
    recipe: Recipe,
    parts: Parts,
    *,
    project: str,
    job: outbox.Job | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Explanation:
    """Explain one stored exchange and store the result; evidence that is there is used, not asked again.

    Raises CannotExplain (final), UpstreamBusy (try the job later) or another SpexError (final).
    """
    exchange = await read(parts.store, exchanges.load_exchange, exchange_id, project=project)
    request = await read(parts.store, exchanges.load_trace, exchange_id, project=project)
    with parts.telemetry.job_span(exchange, job.id if job else None, request) as span:
        try:
            table = await _lay(exchange, recipe, parts)
            fit, blocks = await _play(table, recipe, parts, span, on_progress)
            explanation = _conclude(table, recipe, fit, blocks, parts, reference(span))
            await write(parts.store, _save, explanation, job)
        except SpexError as error:
            record_failure(span, type(error).__name__)
            raise
        record_result(span, explanation)
    return explanation


async def _lay(exchange: Exchange, recipe: Recipe, parts: Parts) -> Table:
    """Token ids, players, target, scorer: the game, stored before the first question."""
    info = await parts.server.info(exchange.model)
    scorer = CompletionsScorer(parts.server, info, parts.priority)
    salt = await read(parts.store, exchanges.load_salt, exchange.id, project=exchange.project)
    tokens = await read(parts.store, exchanges.load_tokens, exchange.id, project=exchange.project)
    if tokens is None:
        tokens = await tokenize(exchange, parts.server)
        await write(parts.store, exchanges.save_tokens, exchange.id, tokens, project=exchange.project)
    segmenter = parts.plugins.segmenter(recipe.segmenter)
    ranges = call("segmenter", recipe.segmenter, segmenter.split, exchange)
    players = align(recipe.segmenter, ranges, exchange, tokens)
    if not players.segments:
        raise CannotExplain(f"the segmenter {recipe.segmenter!r} found nothing in the prompt that could be masked")
    target = Target(
        0,
        min(len(tokens.output_ids), recipe.max_scored_tokens),
        is_cut=len(tokens.output_ids) > recipe.max_scored_tokens,
    )
    longest = len(tokens.prompt_ids) + len(target)
    if scorer.max_tokens is not None and longest > scorer.max_tokens:
        raise CannotExplain(
            f"prompt and answer have {longest} tokens together, the server takes {scorer.max_tokens} to score them"
        )
    game = Game(
        id=_new_id(),
        project=exchange.project,
        kind="features",
        exchange_id=exchange.id,
        parent_game_id=None,
        players=players,
        masker=recipe.masker,
        value=recipe.value,
        scorer=scorer.facts,
        target=target,
        digest="",
    )
    game = replace(game, digest=game_digest(game, tokens, salt))
    game = await write(parts.store, games.save_game, game)
    return Table(exchange, tokens, salt, game, scorer)


async def _play(
    table: Table, recipe: Recipe, parts: Parts, span: Span, on_progress: Callable[[Progress], None]
) -> tuple[Fit, list[Block]]:
    """Ask until decide() is content. Each answered batch is committed before the next is sent."""
    blocks = list(await read(parts.store, games.load_blocks, table.game.id, project=table.game.project))
    on_progress(_progress(blocks, recipe, "preparing"))
    headers = headers_of(span)
    while True:
        evidence = Evidence.from_blocks(table.game.n_players, blocks)
        try:
            step = await asyncio.to_thread(decide, recipe, evidence)
        except ValueError as error:
            raise CannotExplain(f"the recipe makes no sense: {error}") from error
        if isinstance(step, Fit):
            return step, blocks
        with parts.telemetry.round_span(step.round, len(step.masks)):
            for rows in _batches(step, table.scorer.batch_size):
                block = await _ask(table, recipe, parts, len(blocks), step.masks[rows], step.replicates[rows], headers)
                blocks = await _commit(table, block, blocks, parts)
                on_progress(_progress(blocks, recipe, step.reason))


async def _commit(table: Table, block: Block, blocks: list[Block], parts: Parts) -> list[Block]:
    """Keep an answered batch. Where another worker was faster, its readings stand."""
    game = table.game
    if await write(parts.store, games.append_block, game.id, block, project=game.project):
        return [*blocks, block]
    return list(await read(parts.store, games.load_blocks, game.id, project=game.project))


async def _ask(
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
        values=call("value", recipe.value, value.read, logprobs),
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
    flags = []
    if fit.verdict != "reliable":
        flags.append(Flag(fit.verdict, fit.verdict_reason))
    if table.game.target.is_cut:
        flags.append(Flag("output_cut", f"only the first {len(table.game.target)} tokens of the answer are explained"))
    return Explanation(
        id=_new_id(),
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
        cost=Cost(
            masks=sum(len(block.values) for block in blocks),
            prompt_tokens=sum(block.prompt_tokens for block in blocks),
            cached_tokens=sum(block.cached_tokens for block in blocks),
            seconds=sum(block.seconds for block in blocks),
        ),
        flags=tuple(flags),
        trace_id=trace.trace_id if trace else None,
        span_id=trace.span_id if trace else None,
        created_at=datetime.now(UTC),
    )


def _batches(ask: Ask, size: int) -> list[Any]:
    """Row numbers in batches, sorted so that neighbours share long prompt prefixes."""
    order = np.lexsort([ask.replicates, *(~ask.masks).T[::-1]])
    return [order[start : start + size] for start in range(0, len(order), size)]


def _progress(blocks: Sequence[Block], recipe: Recipe, note: str) -> Progress:
    masks = sum(len(block.values) for block in blocks)
    return Progress(masks, recipe.budget, sum(block.prompt_tokens for block in blocks), note)


def _save(connection: Any, explanation: Explanation, job: outbox.Job | None) -> None:
    explanations.save_explanation(connection, explanation)
    if job is not None:
        outbox.finish(connection, job, explanation.id)


def _new_id() -> str:
    return uuid.uuid4().hex
