"""The first part of an explanation: from an exchange to a game that can be played."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange, Target, TokenizedExchange
from spex_proxy.facts.game import Game
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.token_budget import UNLIMITED, TokenBudget
from spex_proxy.flows.probes import game_digest
from spex_proxy.flows.tokenize import tokenize
from spex_proxy.flows.transactions import read, write
from spex_proxy.plug import answers
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.gate.gate import Gate
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.scorers import Scorer
from spex_proxy.ports.scorers.completions import CompletionsScorer
from spex_proxy.ports.telemetry import Telemetry
from spex_proxy.store import exchanges, games
from spex_proxy.wire.tokens import align


@dataclass(frozen=True, slots=True)
class Parts:
    """What an explanation is made with. Built once by wiring, shared by all jobs of a worker."""

    store: Engine
    server: ModelServer
    plugins: Plugins
    telemetry: Telemetry
    priority: int
    """vLLM priority of our requests; production's is 0, larger is less urgent."""
    gate: Gate | None = None
    """Says when we may ask. None: whenever we like."""
    token_budget: TokenBudget = UNLIMITED
    """What our questions may cost together."""


@dataclass(frozen=True, slots=True)
class Table:
    """The game laid out for play: everything that stays the same while masks are asked."""

    exchange: Exchange
    tokens: TokenizedExchange
    salt: bytes
    game: Game
    scorer: Scorer


async def lay(exchange: Exchange, recipe: Recipe, parts: Parts) -> Table:
    """Token ids, players, target, scorer: the game, stored before the first question."""
    info = await parts.server.info(exchange.model)
    scorer = CompletionsScorer(parts.server, info, parts.priority)
    salt = await read(parts.store, exchanges.load_salt, exchange.id, project=exchange.project)
    tokens = await read(parts.store, exchanges.load_tokens, exchange.id, project=exchange.project)
    if tokens is None:
        tokens = await tokenize(exchange, parts.server)
        await write(parts.store, exchanges.save_tokens, exchange.id, tokens, project=exchange.project)
    segmenter = parts.plugins.segmenter(recipe.segmenter)
    ranges = answers.split(segmenter, recipe.segmenter, exchange)
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
        id=uuid.uuid4().hex,
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
