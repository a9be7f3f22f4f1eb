"""Coarse to fine: hundreds of segments are too many players for a few hundred masks, ten documents are not.

A recipe with `finer` is explained by its own segmenter first. Then a job follows for the parts that were found to
matter, cut by the finer one; all else stays in every prompt, so its first token costs the server what a cached prefix
costs. Each level is a game and an explanation of its own, so `verify` follows both; the finer cites the coarser.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from spex_proxy.engine import interactions
from spex_proxy.facts.exchange import Segmentation
from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.game import Game
from spex_proxy.facts.recipe import Recipe
from spex_proxy.store import explanations, games, outbox

SHARE = 0.9
"""Of the coarser level's influence, that of the parts that are cut."""
MOST_PLAYERS = 64
"""Of the finer level; the weakest parts stay whole beyond that."""
WHY = "finer"


def next_recipe(explanation: Explanation) -> Recipe | None:
    """How the finer level is explained; None if there is none, or nothing to look into."""
    recipe = explanation.recipe
    if not recipe.finer or explanation.verdict == "nothing_to_explain":
        return None
    return replace(recipe, segmenter=recipe.finer, finer="", inside=explanation.id, plugins={})


def follow_up(connection: Connection, explanation: Explanation, job: outbox.Job | None) -> None:
    """Leave the job for the finer level, in the transaction that stores the coarser one."""
    recipe = next_recipe(explanation)
    if recipe is None or explanation.exchange_id is None:
        return
    outbox.enqueue(
        connection,
        exchange_id=explanation.exchange_id,
        recipe=recipe,
        why=WHY,
        priority=job.priority if job else outbox.Priority.ASKED,
        traceparent=job.traceparent if job else None,
        tracestate=job.tracestate if job else None,
        project=explanation.project,
    )


def load_coarser(connection: Connection, recipe: Recipe, project: str) -> tuple[Explanation, Game]:
    """The level above. Raises NotFound."""
    above = explanations.load_explanation(connection, recipe.inside, project=project)
    return above, games.load_game(connection, above.game_ids[0], project=project)


def cut(coarser: Explanation, parts: Segmentation, fine: Segmentation) -> Segmentation:
    """The players of the finer level: the fine segments inside the parts that matter. A part that has not two of them
    stays whole. Pure."""
    inside = [
        [one for one in fine.segments if part.token_start <= one.token_start and one.token_end <= part.token_end]
        for part in parts.segments
    ]
    sizes = [max(1, len(segments)) for segments in inside]
    chosen = interactions.strongest(interactions.influence(coarser.spectrum), sizes, SHARE, MOST_PLAYERS)
    players = [one for at in chosen for one in (inside[at] if len(inside[at]) > 1 else [parts.segments[at]])]
    note = f"the parts that mattered most are cut: {len(chosen)} of {len(parts)} ({parts.method}); all else is kept"
    return replace(fine, segments=tuple(players), notes=(*fine.notes, note))
