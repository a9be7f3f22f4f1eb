"""Explanations: the result, its strongest terms for searching, its flags, and the games that it cites."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.exchange import Segment, Target
from spex_proxy.facts.explanation import Cost, Explanation, Flag, Interaction
from spex_proxy.facts.origins import bits_of
from spex_proxy.facts.recipe import Recipe
from spex_proxy.store import codec, flags
from spex_proxy.store.columns import DEFAULT_PROJECT
from spex_proxy.store.rows import get_or_create_project
from spex_proxy.store.tables import explanation_games, explanations, games, interactions

MAX_INTERACTIONS = 32

COPIES = ("method", "recipe_digest", "n_players", "n_terms", "r2", "r2_low", "r2_high")
"""Columns that repeat, for searching, what stands elsewhere in an explanation."""


def save_explanation(conn: sa.Connection, explanation: Explanation) -> None:
    """Keep an explanation with its interactions, flags and the games it cites, which must be stored.

    Whoever ends a job calls `outbox.finish` in the same transaction.
    Raises ValueError for more than 32 interactions.
    """
    if len(explanation.interactions) > MAX_INTERACTIONS:
        raise ValueError(f"{len(explanation.interactions)} interactions; at most {MAX_INTERACTIONS} are kept")
    get_or_create_project(conn, explanation.project)
    segments = _segments(conn, explanation)
    conn.execute(sa.insert(explanations).values(**_row(explanation)))
    parts: tuple[tuple[sa.Table, list[dict[str, Any]]], ...] = (
        (explanation_games, _positions({"game_id": game_id} for game_id in explanation.game_ids)),
        (interactions, [_interaction_row(rank, i, segments) for rank, i in enumerate(explanation.interactions)]),
    )
    keys = {"project": explanation.project, "explanation_id": explanation.id}
    for table, rows in parts:
        if rows:
            conn.execute(sa.insert(table), [row | keys for row in rows])
    flags.save_of_explanation(conn, explanation)


def load_explanation(conn: sa.Connection, explanation_id: str, *, project: str = DEFAULT_PROJECT) -> Explanation:
    """Raises NotFound; VerificationFailed for damaged bytes; SpexError for what a newer version wrote."""
    row = conn.execute(
        sa.select(explanations).where(explanations.c.project == project, explanations.c.id == explanation_id)
    ).first()
    if row is None:
        raise NotFound(f"there is no explanation {explanation_id!r} in project {project!r}")
    return _explanation(
        row._mapping,
        game_ids=[r.game_id for r in _parts(conn, explanation_games, "position", project, explanation_id)],
        terms=_parts(conn, interactions, "rank", project, explanation_id),
        raised=flags.of_explanation(conn, explanation_id, project=project),
    )


def recipes_of_game(conn: sa.Connection, game_id: str, *, project: str = DEFAULT_PROJECT) -> tuple[Recipe, ...]:
    """Of all explanations that cite a game."""
    of_game = sa.and_(
        explanation_games.c.project == explanations.c.project, explanation_games.c.explanation_id == explanations.c.id
    )
    query = (
        sa.select(explanations.c.id, explanations.c.recipe)
        .select_from(explanations.join(explanation_games, of_game))
        .where(explanation_games.c.project == project, explanation_games.c.game_id == game_id)
    )
    return tuple(codec.build(Recipe, row.recipe, f"recipe of explanation {row.id}") for row in conn.execute(query))


def recipes_of_exchange(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> tuple[Recipe, ...]:
    """Of all explanations of an exchange."""
    query = sa.select(explanations.c.id, explanations.c.recipe).where(
        explanations.c.project == project, explanations.c.exchange_id == exchange_id
    )
    return tuple(codec.build(Recipe, row.recipe, f"recipe of explanation {row.id}") for row in conn.execute(query))


def latest_for_exchange(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> Explanation | None:
    """The newest explanation of an exchange, or None if it has none."""
    newest = conn.scalar(
        sa.select(explanations.c.id)
        .where(explanations.c.project == project, explanations.c.exchange_id == exchange_id)
        .order_by(explanations.c.created_at.desc(), explanations.c.id.desc())
        .limit(1)
    )
    return None if newest is None else load_explanation(conn, newest, project=project)


def wrong_copies(conn: sa.Connection, explanation: Explanation) -> list[str]:
    """Columns for searching which say something else than the explanation that was loaded."""
    ours = explanations.c.project == explanation.project, explanations.c.id == explanation.id
    row = conn.execute(sa.select(*(explanations.c[name] for name in COPIES)).where(*ours)).one()._mapping
    made = _row(explanation)
    sizes = [term.size for term in _parts(conn, interactions, "rank", explanation.project, explanation.id)]
    is_sized = sizes == [interaction.order for interaction in explanation.interactions]
    return [name for name in COPIES if row[name] != made[name]] + ([] if is_sized else ["interactions.size"])


def _row(explanation: Explanation) -> dict[str, Any]:
    fidelity, cost = explanation.fidelity, explanation.cost
    return {
        "id": explanation.id,
        "project": explanation.project,
        "exchange_id": explanation.exchange_id,
        "target": dataclasses.asdict(explanation.target),
        "method": explanation.recipe.method,
        "recipe": explanation.recipe.to_json(),
        "recipe_digest": explanation.recipe.digest(),
        "spectrum": codec.encode_spectrum(explanation.spectrum),
        "n_players": explanation.spectrum.n_players,
        "n_terms": len(explanation.spectrum),
        "fidelity": codec.encode_fidelity(fidelity),
        "r2": codec.finite(fidelity.r2),
        "r2_low": codec.finite(fidelity.r2_low),
        "r2_high": codec.finite(fidelity.r2_high),
        "how": codec.pack_json(explanation.how),
        "verdict": explanation.verdict,
        "verdict_reason": explanation.verdict_reason,
        **{f"cost_{name}": value for name, value in dataclasses.asdict(cost).items()},
        "trace_id": explanation.trace_id,
        "span_id": explanation.span_id,
        "created_at": explanation.created_at,
    }


def _positions(rows: Any) -> list[dict[str, Any]]:
    return [{"position": position, **row} for position, row in enumerate(rows)]


def _interaction_row(rank: int, interaction: Interaction, segments: Sequence[Segment]) -> dict[str, Any]:
    fields = dataclasses.asdict(interaction)
    origins = bits_of(segments[player] for player in interaction.players) if segments else 0
    return fields | {
        "rank": rank, "size": interaction.order, "players": list(interaction.players), "origins": origins,
    }  # fmt: skip


def _segments(conn: sa.Connection, explanation: Explanation) -> Sequence[Segment]:
    """The players of the game that its interactions are of; none if it cites none that is stored."""
    first = explanation.game_ids[0] if explanation.game_ids else None
    found = conn.scalar(sa.select(games.c.players).where(games.c.project == explanation.project, games.c.id == first))
    if found is None:
        return ()
    segments = codec.decode_players(found, f"players of game {first}").segments
    return segments if len(segments) == explanation.spectrum.n_players else ()


def _parts(
    conn: sa.Connection, table: sa.Table, order: str, project: str, explanation_id: str
) -> Sequence[sa.Row[Any]]:
    return conn.execute(
        sa.select(table)
        .where(table.c.project == project, table.c.explanation_id == explanation_id)
        .order_by(table.c[order])
    ).all()


def _explanation(
    row: sa.RowMapping,
    game_ids: Sequence[str],
    terms: Sequence[sa.Row[Any]],
    raised: tuple[Flag, ...],
) -> Explanation:
    what = f"explanation {row['id']}"
    return Explanation(
        id=row["id"],
        project=row["project"],
        exchange_id=row["exchange_id"],
        game_ids=tuple(game_ids),
        target=codec.build(Target, row["target"], f"target of {what}"),
        recipe=codec.build(Recipe, row["recipe"], f"recipe of {what}"),
        spectrum=codec.decode_spectrum(row["spectrum"], f"spectrum of {what}"),
        fidelity=codec.decode_fidelity(row["fidelity"], f"fidelity of {what}"),
        interactions=tuple(
            Interaction(tuple(t.players), t.fourier, t.banzhaf, t.moebius, t.standard_error) for t in terms
        ),
        how=codec.unpack_json(row["how"], f"record of how {what} was fitted"),
        verdict=row["verdict"],
        verdict_reason=row["verdict_reason"],
        cost=Cost(**{field.name: row[f"cost_{field.name}"] for field in dataclasses.fields(Cost)}),
        flags=raised,
        trace_id=row["trace_id"],
        span_id=row["span_id"],
        created_at=row["created_at"],
    )
