"""From an exchange to a game that can be played, whatever it is a game of."""

from __future__ import annotations

import asyncio

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.playing import scorer_of
from spex_proxy.flows.table import Laid, Parts, Table, aimed_at, laid, lay_request
from spex_proxy.flows.transactions import read
from spex_proxy.plug import answers
from spex_proxy.store import exchanges
from spex_proxy.wire.tokens import align


async def lay(exchange: Exchange, recipe: Recipe, parts: Parts) -> Table:
    """The table; whoever has it closes it."""
    if exchange.kind != "game":
        return await lay_request(exchange, recipe, parts)
    salt = await read(parts.store, exchanges.load_salt, exchange.id, project=exchange.project)
    tokens = await read(parts.store, exchanges.load_tokens, exchange.id, project=exchange.project)
    if tokens is None:
        raise CannotExplain("this game was stored without its players; start it anew with `spex-proxy game run`")
    scorer, rules = await scorer_of(exchange, parts, salt)
    try:
        texts = answers.split(parts.plugins.segmenter(recipe.segmenter), recipe.segmenter, exchange)
        players = align(recipe.segmenter, texts, exchange, tokens)
        aimed = aimed_at(recipe, exchange, tokens, recipe.max_scored_tokens)
        made = Laid(
            exchange, tokens, salt, rules.kind, players, aimed, scorer, close=scorer.close, recorded=scorer.recorded
        )
        return await laid(made, recipe, parts)
    except BaseException:  # whatever it was, and cancellation too: what was opened is closed, and the error goes on
        await asyncio.to_thread(scorer.close)
        raise
