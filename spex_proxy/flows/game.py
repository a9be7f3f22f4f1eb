"""A game over a model's components or training data, from a person's file to the store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.exchange import Exchange
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.playing import open_game
from spex_proxy.flows.table import Parts
from spex_proxy.flows.transactions import write
from spex_proxy.flows.written_game import differences, exchange_of, recipe_of, tokens_of
from spex_proxy.plug.kinds import Rules
from spex_proxy.store import exchanges, outbox
from spex_proxy.store.exchanges import Kept

WHY = "asked"
MOST_LOOKED_AT = 500
"""Stored games of one subject that are compared with a new one, the newest first."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A game that is ready to be explained."""

    exchange: Exchange
    rules: Rules
    is_new: bool
    """False if it was stored before: what was measured then is not measured again."""


async def store_game(maker: str, config: Mapping[str, Any], parts: Parts, *, project: str) -> Stored:
    """Open a game once, to see what it is, and keep it. Raises as `open_game` does."""
    name = str(uuid.uuid4())
    game = await open_game(maker, config, parts, project=project, key=name)
    rules = game.rules
    await asyncio.to_thread(game.close)
    made = exchange_of(maker, config, rules, exchange_id=name, project=project, now=datetime.now(UTC))
    return Stored(*await write(parts.store, _keep, made, rules))


def _keep(conn: sa.Connection, made: Exchange, rules: Rules) -> tuple[Exchange, Rules, bool]:
    known = _known(conn, made, rules)
    if known is not None:
        return known, rules, False
    kept = Kept(made, None, None, None, explain=True, why=WHY, explain_probability=1.0)
    exchanges.save_captured(conn, [kept])
    exchanges.save_tokens(conn, made.id, tokens_of(made), project=made.project)
    return made, rules, True


def _known(conn: sa.Connection, made: Exchange, rules: Rules) -> Exchange | None:
    """The stored game that equals this one. By its content: a digest of content has no column that outlives it."""
    for exchange_id in exchanges.newest_games(conn, made.model, MOST_LOOKED_AT, project=made.project):
        try:
            stored = exchanges.load_exchange(conn, exchange_id, project=made.project)
        except NotFound:  # erased
            continue
        is_asked_so = all(stored.request[name] == made.request[name] for name in ("game", "config"))
        if is_asked_so and not differences(stored, rules):
            return stored
    return None


async def enqueue_game(stored: Stored, recipe: Recipe, parts: Parts, shares: int = 1) -> str:
    """Leave it to a worker, or to several; returns the id of the job that explains.

    With `shares`, so many jobs measure the game together, each on a worker of its own if there are as many.
    """
    return await write(parts.store, _enqueue, stored.exchange, recipe_of(stored.exchange, recipe), shares)


def _enqueue(conn: sa.Connection, exchange: Exchange, recipe: Recipe, shares: int) -> str:
    ids = [
        outbox.enqueue(
            conn, exchange_id=exchange.id, recipe=recipe, why=WHY, priority=outbox.Priority.ASKED,
            project=exchange.project, kind="share" if part else "explain",
            task={"part": part, "of": shares} if shares > 1 else None,
        )
        for part in range(shares)
    ]  # fmt: skip
    return ids[0]
