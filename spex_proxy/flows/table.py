"""The first part of an explanation: from an exchange to a game that can be played."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from spex_proxy.facts.aim import WHOLE_OUTPUT, read_aim
from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange, Target, TokenizedExchange
from spex_proxy.facts.game import Game
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.probes import game_digest
from spex_proxy.flows.tokenize import output_of, tokenize
from spex_proxy.flows.transactions import read, write
from spex_proxy.plug import answers
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.scorers import Scorer
from spex_proxy.ports.scorers.completions import CompletionsScorer
from spex_proxy.ports.telemetry import Telemetry
from spex_proxy.store import exchanges, games
from spex_proxy.wire.aiming import Aimed, aim_at
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
    orders: Orders | None = None
    """Who looks at explanations, and which rules act upon what they find; None: nobody."""


@dataclass(frozen=True, slots=True)
class Table:
    """The game laid out for play: everything that stays the same while masks are asked."""

    exchange: Exchange
    tokens: TokenizedExchange
    salt: bytes
    game: Game
    target: Target
    """What is explained: those of the game's scored tokens that the recipe aims at."""
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
    if recipe.target != WHOLE_OUTPUT and not tokens.output_text:  # stored by a version that kept no offsets of it
        found = await output_of(exchange, parts.server)
        tokens = replace(tokens, **found) if found["output_ids"] == tokens.output_ids else tokens
    segmenter = parts.plugins.segmenter(recipe.segmenter)
    ranges = answers.split(segmenter, recipe.segmenter, exchange)
    players = align(recipe.segmenter, ranges, exchange, tokens)
    if not players.segments:
        raise CannotExplain(f"the segmenter {recipe.segmenter!r} found nothing in the prompt that could be masked")
    aimed = _aimed(recipe, exchange, tokens)
    longest = len(tokens.prompt_ids) + aimed.scored.end
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
        target=aimed.scored,
        digest="",
    )
    game = replace(game, digest=game_digest(game, tokens, salt))
    game = await write(parts.store, games.save_game, game)
    return Table(exchange, tokens, salt, game, aimed.target, scorer)


def _aimed(recipe: Recipe, exchange: Exchange, tokens: TokenizedExchange) -> Aimed:
    try:
        aim = read_aim(recipe.target)
    except ValueError as error:
        raise CannotExplain(f"the recipe makes no sense: {error}") from error
    return aim_at(aim, exchange, tokens, recipe.max_scored_tokens)
