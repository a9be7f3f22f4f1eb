"""Games and their evidence: what was asked of the model, and what it answered."""

from __future__ import annotations

import dataclasses

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.evidence import Block
from spex_proxy.facts.exchange import Target
from spex_proxy.facts.game import Game, Scorer
from spex_proxy.store import codec
from spex_proxy.store.columns import DEFAULT_PROJECT, utc_now
from spex_proxy.store.rows import get_or_create_project, insert_new
from spex_proxy.store.tables import evidence_blocks, games


def save_game(conn: sa.Connection, game: Game) -> Game:
    """Keep a game, or find the one that asks the same of the same exchange (equal digest).

    The returned game is the one to go on with: a resumed job continues the evidence of its first attempt.
    """
    get_or_create_project(conn, game.project)
    row = {
        "id": game.id,
        "project": game.project,
        "kind": game.kind,
        "exchange_id": game.exchange_id,
        "parent_game_id": game.parent_game_id,
        "n_players": game.n_players,
        "players": codec.encode_players(game.players),
        "masker": game.masker,
        "value": game.value,
        "scorer": dataclasses.asdict(game.scorer),
        "scored_tokens": dataclasses.asdict(game.target),
        "digest": game.digest,
        "created_at": utc_now(),
    }
    if insert_new(conn, games, row):
        return game
    known = conn.execute(
        sa.select(games).where(
            games.c.project == game.project,
            games.c.exchange_id.is_not_distinct_from(game.exchange_id),
            games.c.digest == game.digest,
        )
    ).first()
    if known is None:
        raise ValueError(f"game id {game.id!r} is taken by a game with another digest")
    return _game(known._mapping)


def load_game(conn: sa.Connection, game_id: str, *, project: str = DEFAULT_PROJECT) -> Game:
    """Raises NotFound."""
    row = conn.execute(sa.select(games).where(games.c.project == project, games.c.id == game_id)).first()
    if row is None:
        raise NotFound(f"there is no game {game_id!r} in project {project!r}")
    return _game(row._mapping)


def append_block(conn: sa.Connection, game_id: str, block: Block, *, project: str = DEFAULT_PROJECT) -> bool:
    """Keep one answered batch. Returns False, changing nothing, if the game has a block of that number:
    then another worker was faster, and its readings stand."""
    keys = {"project": project, "game_id": game_id, "asked_at": utc_now()}
    return insert_new(conn, evidence_blocks, codec.encode_block(block) | keys)


def load_blocks(conn: sa.Connection, game_id: str, *, project: str = DEFAULT_PROJECT) -> tuple[Block, ...]:
    """All evidence of a game, by number; empty for a game that has none or isn't known.

    Raises VerificationFailed if a block's bytes do not fit its digest.
    """
    query = (
        sa.select(evidence_blocks)
        .where(evidence_blocks.c.project == project, evidence_blocks.c.game_id == game_id)
        .order_by(evidence_blocks.c.number)
    )
    return tuple(
        codec.decode_block(dict(row._mapping), f"evidence block {row.number} of game {game_id}")
        for row in conn.execute(query)
    )


def next_number(conn: sa.Connection, game_id: str, *, project: str = DEFAULT_PROJECT) -> int:
    """The next free number."""
    this = (evidence_blocks.c.project == project, evidence_blocks.c.game_id == game_id)
    last = conn.scalar(sa.select(sa.func.max(evidence_blocks.c.number)).where(*this))
    return 0 if last is None else int(last) + 1


@dataclasses.dataclass(frozen=True, slots=True)
class BlockSeal:
    """A block of evidence by its digest: what a report quotes."""

    number: int
    n_masks: int
    digest: str


def block_seals(conn: sa.Connection, game_id: str, *, project: str = DEFAULT_PROJECT) -> tuple[BlockSeal, ...]:
    """The stored digests of a game's blocks, in order. Whether the blocks fit them, `load_blocks` finds out."""
    query = (
        sa.select(evidence_blocks.c.number, evidence_blocks.c.n_masks, evidence_blocks.c.digest)
        .where(evidence_blocks.c.project == project, evidence_blocks.c.game_id == game_id)
        .order_by(evidence_blocks.c.number)
    )
    return tuple(BlockSeal(*row) for row in conn.execute(query))


def _game(row: sa.RowMapping) -> Game:
    what = f"game {row['id']}"
    return Game(
        id=row["id"],
        project=row["project"],
        kind=row["kind"],
        exchange_id=row["exchange_id"],
        parent_game_id=row["parent_game_id"],
        players=codec.decode_players(row["players"], f"players of {what}"),
        masker=row["masker"],
        value=row["value"],
        scorer=codec.build(Scorer, row["scorer"], f"scorer of {what}"),
        target=codec.build(Target, row["scored_tokens"], f"target of {what}"),
        digest=row["digest"],
    )
