"""The first part of an explanation: from an exchange to a game that can be played."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sqlalchemy import Engine

from spex_proxy.facts.aim import WHOLE_OUTPUT, read_aim
from spex_proxy.facts.errors import BadReply, CannotExplain
from spex_proxy.facts.evidence import Masks
from spex_proxy.facts.exchange import Exchange, Segmentation, Target, TokenizedExchange
from spex_proxy.facts.game import Game, GameKind, most_scored
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.token_budget import UNLIMITED, TokenBudget
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.finer import cut, load_coarser
from spex_proxy.flows.probes import game_digest
from spex_proxy.flows.tokenize import output_of, tokenize
from spex_proxy.flows.transactions import read, write
from spex_proxy.plug import answers
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.gate.gate import Gate
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.model_servers import ModelServers
from spex_proxy.ports.scorers import Scorer
from spex_proxy.ports.scorers.choose import Scorers
from spex_proxy.ports.scorers.regenerate import Told
from spex_proxy.ports.telemetry import Telemetry
from spex_proxy.store import exchanges, games
from spex_proxy.wire.aiming import Aimed, aim_at
from spex_proxy.wire.engine import lay_out
from spex_proxy.wire.tokens import align
from spex_proxy.wire.wording import in_words


@dataclass(frozen=True, slots=True)
class Parts:
    """What an explanation is made with. Built once by wiring, shared by all jobs of a worker."""

    store: Engine
    servers: ModelServers
    plugins: Plugins
    telemetry: Telemetry
    scorers: Callable[[ModelServer], Scorers]
    """Of each replica."""
    priority: int = 100
    """vLLM priority of what we ask besides scoring; production's is 0, larger is less urgent."""
    gate: Gate | None = None
    """Says when we may ask. None: whenever we like."""
    token_budget: TokenBudget = UNLIMITED
    """What our questions may cost together."""
    counters: Counters = field(default_factory=Counters)
    """Of this process."""
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
    close: Callable[[], None]
    """To be called in the end, whatever it was."""
    caller: Caller
    recorded: Masks | None = None
    """Shape (m, n). The only coalitions that can be asked; None: any."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, for whom: what the gate and the budgets go by."""

    scorer: Scorer
    project: str
    server: str = ""
    """Base URL of the replica that is asked."""
    rule: str | None = None
    """Name of the rule that decided about the exchange, whose budget its masks are asked from."""


async def lay_request(exchange: Exchange, recipe: Recipe, parts: Parts) -> Table:
    """Of a production request: token ids, players, target, scorer, stored before the first question."""
    server = await parts.servers.choose(exchange.id)  # for all masks of it
    info = await server.info(exchange.model)
    salt = await read(parts.store, exchanges.load_salt, exchange.id, project=exchange.project)
    tokens = await read(parts.store, exchanges.load_tokens, exchange.id, project=exchange.project)
    scorers = parts.scorers(server)
    chosen = (await scorers.choice(info)).name
    if tokens is None:
        tokens = in_words(exchange) if chosen == "regenerate" else await tokenize(exchange, server)
        await write(parts.store, exchanges.save_tokens, exchange.id, tokens, project=exchange.project)
    if tokens.ids_source == "words" and chosen != "regenerate":
        raise CannotExplain(
            f"this exchange was explained by its words, when the server told no token ids; {chosen} needs ids, and the "
            "games that stand would no longer fit: ask with SPEX_SCORER=regenerate"
        )
    if recipe.target != WHOLE_OUTPUT and not tokens.output_text:  # stored by a version that kept no offsets of it
        found = await output_of(exchange, server)
        tokens = replace(tokens, **found) if found["output_ids"] == tokens.output_ids else tokens
    segmenter = parts.plugins.segmenter(recipe.segmenter)
    texts = answers.split(segmenter, recipe.segmenter, exchange)
    players = align(recipe.segmenter, texts, exchange, tokens)
    parent: str | None = None
    if recipe.inside:
        coarser, above = await read(parts.store, load_coarser, recipe, exchange.project)
        players, parent = cut(coarser, above.players, players), above.id
    if not players.segments:
        raise CannotExplain(f"the segmenter {recipe.segmenter!r} found nothing in the prompt that could be masked")
    filler: str = getattr(parts.plugins.masker(recipe.masker), "filler", "")
    if chosen == "regenerate" and filler:
        raise CannotExplain(
            f"the scorer regenerate takes segments out of the request's text; the masker {recipe.masker!r} puts tokens "
            "in their place, which it can't send: choose delete or blank_message"
        )
    players = replace(players, filler=await _filler(exchange.model, recipe.masker, parts, server))
    ranges = [(one.token_start, one.token_end) for one in players.segments]
    layout = lay_out(tokens.prompt_ids, ranges, players.filler)
    aimed = aimed_at(recipe, exchange, tokens, most_scored(chosen, recipe.max_scored_tokens))
    scorer = await scorers.make(info, layout, Told(exchange, tokens, players, aimed.scored.start), chosen)
    players = replace(players, notes=(*players.notes, *filter(None, [scorer.facts.note])))
    longest = len(tokens.prompt_ids) + aimed.scored.end
    if scorer.max_tokens is not None and longest > scorer.max_tokens:
        raise CannotExplain(
            f"prompt and answer have {longest} tokens together, the server takes {scorer.max_tokens} to score them"
        )
    made = Laid(exchange, tokens, salt, "features", players, aimed, scorer, server.base_url, parent_game_id=parent)
    return await laid(made, recipe, parts)


@dataclass(frozen=True, slots=True)
class Laid:
    """What a table is made of, before its game is stored."""

    exchange: Exchange
    tokens: TokenizedExchange
    salt: bytes
    kind: GameKind
    players: Segmentation
    aimed: Aimed
    scorer: Scorer
    server: str = ""
    """Base URL of the model server that is asked; empty if it is none."""
    close: Callable[[], None] = lambda: None
    recorded: Masks | None = None
    parent_game_id: str | None = None
    """The game of the coarser level."""


async def laid(parts_of: Laid, recipe: Recipe, parts: Parts) -> Table:
    """Store the game, or find the one that asks the same."""
    exchange = parts_of.exchange
    game = Game(
        id=uuid.uuid4().hex,
        project=exchange.project,
        kind=parts_of.kind,
        exchange_id=exchange.id,
        parent_game_id=parts_of.parent_game_id,
        players=parts_of.players,
        masker=recipe.masker,
        value=recipe.value,
        scorer=parts_of.scorer.facts,
        target=parts_of.aimed.scored,
        digest="",
    )
    game = replace(game, digest=game_digest(game, parts_of.tokens, parts_of.salt))
    game = await write(parts.store, games.save_game, game)
    rule = await read(parts.store, exchanges.load_rule, exchange.id, project=exchange.project)
    target, scorer = parts_of.aimed.target, parts_of.scorer
    caller = Caller(scorer, exchange.project, parts_of.server, rule)
    return Table(
        exchange, parts_of.tokens, parts_of.salt, game, target, scorer, parts_of.close, caller, parts_of.recorded
    )


def aimed_at(recipe: Recipe, exchange: Exchange, tokens: TokenizedExchange, most: int) -> Aimed:
    try:
        aim = read_aim(recipe.target)
    except ValueError as error:
        raise CannotExplain(f"the recipe makes no sense: {error}") from error
    return aim_at(aim, exchange, tokens, most)


async def _filler(model: str, masker: str, parts: Parts, server: ModelServer) -> tuple[int, ...]:
    """Token ids of the text that the masker puts in the place of segments; empty if it puts none."""
    text = getattr(parts.plugins.masker(masker), "filler", "")
    if not text:
        return ()
    reply = await server.tokenize({"model": model, "prompt": text, "add_special_tokens": False})
    ids = reply.get("tokens")
    if not isinstance(ids, list) or not ids or {*map(type, ids)} != {int}:
        raise BadReply(
            f"/tokenize gave no token for {text!r}, which the masker {masker!r} puts in the place of segments"
        )
    return tuple(ids)
