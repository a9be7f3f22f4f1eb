"""What to do next about an explanation: ask the model, or say what was found.

`decide` is a pure function of (recipe, evidence). To resume after a crash is to
call it again with the evidence that was committed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.conclude import METHODS, Fit, conclude, method_of
from spex_proxy.engine.designs import Plan, plan
from spex_proxy.engine.draws import is_corner
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.evidence import Evidence, Masks, Replicates
from spex_proxy.facts.recipe import Recipe

__all__ = ["METHODS", "Ask", "Fit", "decide", "settle"]

CEILING_WIDTH = 0.1
"""The noise ceiling counts as reached only inside an interval that is narrow enough to mean something."""
WORTH_GAIN = 0.01
"""Two doublings of the masks that raise R2 by less than this brought nothing."""
GAIN_FROM = 64
"""Uniform masks (or as many as players, if more) from which on a missing gain is believed."""


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """Measure these."""

    masks: Masks
    """Shape (m, n)."""
    replicates: Replicates
    """Shape (m,)."""
    round: int
    reason: str
    r2: float | None = None
    """Out-of-fold R2 of what all earlier rounds give; None while there is no whole round."""


def decide(recipe: Recipe, evidence: Evidence) -> Ask | Fit:
    """The rest of the first unfinished round, or the next round, or the fit.

    A fit uses every row of evidence, planned or not; but whether to stop before a
    round is told from what was there before it was begun. Of few players another
    recipe's masks are there that this one would ask later, and so is a part of each
    round. Raises BadEvidence for evidence or a budget that no fit can come from,
    ValueError for a recipe that makes no sense.
    """
    method_of(recipe)
    rows = rows_of(evidence)
    design = plan(rows.n_players, recipe)
    known = measured(design, evidence)
    if known.all():
        whole = "all masks were measured" if rows.complete else "the budget was spent"
        return conclude(recipe, rows, whole)
    current = int(design.rounds[~known].min())
    if current == 0 or is_begun(design, known, current, evidence):
        return ask(design, known, current, "the round is not finished")
    before = without(evidence, design, design.rounds >= current)
    found = conclude(recipe, rows_of(before))
    why = reason_to_stop(recipe, before, design, found)
    if why:
        fit = found if len(before) == len(evidence) else conclude(recipe, rows)
        return replace(fit, how={**fit.how, "stopped": why})
    r2 = found.fidelity.r2
    return replace(ask(design, known, current, f"R2 is {r2:.2f} so far"), r2=r2)


def settle(recipe: Recipe, evidence: Evidence, why: str) -> Fit:
    """The fit of what there is: nothing more is asked. Raises as `decide` does."""
    method_of(recipe)
    found = conclude(recipe, rows_of(evidence))
    return replace(found, how={**found.how, "stopped": why})


def measured(design: Plan, evidence: Evidence) -> NDArray[np.bool_]:
    """Shape (planned,). Which (mask, replicate) of the plan the evidence holds."""
    have = set(keys(evidence.masks, evidence.replicates))
    return np.asarray([key in have for key in keys(design.masks, design.replicates)], dtype=np.bool_)


def keys(masks: Masks, replicates: Replicates) -> list[tuple[bytes, int]]:
    """What tells one measurement from another."""
    packed = np.packbits(masks, axis=1)
    return [(row.tobytes(), int(number)) for row, number in zip(packed, replicates, strict=True)]


def is_begun(design: Plan, known: NDArray[np.bool_], current: int, evidence: Evidence) -> bool:
    """True if nothing but this plan was asked, and a part of its current round: whether to ask that was told before,
    and no fit is needed for each batch that comes."""
    is_ahead = known[design.rounds > current].any()
    is_alone = not len(without(evidence, design, np.ones(len(design), dtype=np.bool_)))
    return bool(known[design.rounds == current].any() and is_alone and not is_ahead)


def without(evidence: Evidence, design: Plan, planned: NDArray[np.bool_]) -> Evidence:
    """The evidence but for these (planned,) of the plan."""
    left_out = set(keys(design.masks[planned], design.replicates[planned]))
    chosen = np.asarray([key not in left_out for key in keys(evidence.masks, evidence.replicates)], dtype=np.bool_)
    return Evidence(evidence.masks[chosen], evidence.values[chosen], evidence.replicates[chosen])


def ask(design: Plan, known: NDArray[np.bool_], current: int, reason: str) -> Ask:
    """What is still missing of one round, in the plan's order."""
    missing = ~known & (design.rounds == current)
    return Ask(design.masks[missing], design.replicates[missing], current, reason)


def reason_to_stop(recipe: Recipe, evidence: Evidence, design: Plan, found: Fit) -> str:
    """Why no further round need be asked; empty if one should be."""
    figures = found.fidelity
    if found.verdict == "nothing_to_explain":
        return "there is nothing to explain"
    if figures.r2_low >= recipe.target_r2:
        return "the target was reached"
    narrow = figures.r2_high - figures.r2_low <= CEILING_WIDTH
    if figures.noise_sigma > 0 and narrow and figures.r2_high >= figures.noise_ceiling:
        return "the noise ceiling was reached"
    if brought_nothing(recipe, evidence, design, figures.r2):
        return "two rounds brought nothing"
    return ""


def brought_nothing(recipe: Recipe, evidence: Evidence, design: Plan, r2: float) -> bool:
    """True if the fit of two rounds ago, on enough masks of the plan to be believed, was as good."""
    late = design.rounds > int(design.rounds[measured(design, evidence)].max()) - 2
    if int((~is_corner(design.masks[~late])).sum()) < max(GAIN_FROM, evidence.n_players):
        return False
    earlier_r2 = conclude(recipe, rows_of(without(evidence, design, late))).fidelity.r2
    return max(r2, 0.0) - max(earlier_r2, 0.0) < WORTH_GAIN
