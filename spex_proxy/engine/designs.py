"""Which masks to ask, and in what order: a deterministic function of (players, recipe)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.draws import (
    MIN_UNIFORM,
    SUBSPACES,
    is_corner,
    kept_masks,
    late_masks,
    paired_masks,
    positions,
    raw_words,
    uniform_masks,
)
from spex_proxy.engine.spex import design
from spex_proxy.engine.walsh import pack_masks
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Masks, Replicates
from spex_proxy.facts.recipe import Recipe

FIRST_UNIFORM = 32
"""Uniform masks after the first round; every later round doubles them."""
LEAVE_ONE_OUT_SHARE = 8
"""Leave-one-outs are asked when they cost at most 1/8 of the budget. They answer the first question
everybody has (what if this one sentence were gone?), but a uniform mask teaches a spectrum more."""

UNIFORM_SHARE = 8
"""One mask in eight of a SPEX plan is uniform."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Every question in the order of asking, as if the budget were spent to its end."""

    masks: Masks
    """Shape (m, n)."""
    replicates: Replicates
    """Shape (m,)."""
    rounds: NDArray[np.int64]
    """Shape (m,). Non-decreasing, from 0. A fit is tried after each round."""

    def __len__(self) -> int:
        return int(self.masks.shape[0])


def kind_of(recipe: Recipe) -> tuple[str, float]:
    """The recipe's design: one of KINDS, and how often it keeps a player.

    The method "spex" brings its own design, unless another one is asked for.
    Raises ValueError for a design that nobody knows or that the method can't read.
    """
    kind, given, share = recipe.design.partition("=")
    if recipe.method == "spex" and recipe.design not in ("uniform", "spex"):
        raise ValueError(
            f"the method 'spex' reads masks of its own design only; leave out the design {recipe.design!r}"
        )
    if kind == "keep" and given:
        try:
            kept = float(share)
        except ValueError:
            kept = float("nan")
        if 0 < kept < 1:
            return kind, kept
    if recipe.design not in ("uniform", "paired", "late", "spex"):
        known = "uniform, paired, late, spex and keep=P with 0 < P < 1"
        raise ValueError(f"design {recipe.design!r} is unknown; there is {known}")
    return ("spex" if recipe.method == "spex" else recipe.design), 0.5


def opening(n_players: int, recipe: Recipe) -> Masks:
    """What every plan begins with: the full mask as often as the recipe says, the empty one, leave-one-outs if cheap.

    Raises BadEvidence for a game without players, ValueError for a recipe without replicates.
    """
    if n_players < 1:
        raise BadEvidence("a game without players has nothing to mask")
    if recipe.replicates < 1:
        raise ValueError(f"recipe.replicates is {recipe.replicates}; the full prompt must be measured at least once")
    masks = [np.ones((recipe.replicates, n_players), dtype=np.bool_), np.zeros((1, n_players), dtype=np.bool_)]
    if n_players > 1 and (all_fit(n_players, recipe) or n_players <= recipe.budget // LEAVE_ONE_OUT_SHARE):
        masks.append(~np.eye(n_players, dtype=np.bool_))
    return np.concatenate(masks)


def all_fit(n_players: int, recipe: Recipe) -> bool:
    """True if the budget allows all 2^n masks."""
    return n_players < 63 and recipe.replicates - 1 + (1 << n_players) <= recipe.budget


def plan(n_players: int, recipe: Recipe) -> Plan:
    """The opening, then the recipe's design in rounds; all 2^n masks if they fit into the budget.

    uniform    each player kept or not with probability 1/2; rounds double
    keep=P     each player kept with probability P
    paired     uniform, each mask followed by its complement
    late       groups of masks that differ in the second half of the players only, which a prefix cache makes cheap;
               one mask in four (MIN_UNIFORM at least) is uniform, and fidelity is judged by those
    spex       the groups and offsets of `spex.design`; each round adds a bit, so that after each round there
               is a complete design. One mask in eight (MIN_UNIFORM at least) is uniform: the decoder never sees
               those, so fidelity is judged by them.

    Raises BadEvidence for a game without players or a budget that no fit can come from, ValueError
    for a recipe that makes no sense.
    """
    kind, share = kind_of(recipe)
    first = opening(n_players, recipe)
    free, everything = max(0, recipe.budget - len(first)), all_fit(n_players, recipe)
    if kind == "spex" and not everything:
        later, rounds = coded_rounds(n_players, recipe)
    else:
        if kind == "paired" and not everything:
            later = paired_masks(n_players, free, recipe.seed)
        elif kind == "late" and not everything:
            later, _ = late_masks(n_players, free, recipe.seed)
        elif kind == "keep" and not everything:
            later = kept_masks(n_players, share, free, recipe.seed)
        else:
            later = uniform_masks(n_players, free, recipe.seed)
        if not everything and len(later) < MIN_UNIFORM:
            raise BadEvidence(too_few(n_players, recipe, len(later), free))
        doublings = np.ceil(np.log2((np.arange(len(later)) + 1) / FIRST_UNIFORM))
        rounds = np.zeros(len(later)) if kind == "spex" else np.maximum(0, doublings)
    numbers = np.zeros(len(first) + len(later), dtype=np.int64)
    numbers[: recipe.replicates] = np.arange(recipe.replicates)
    return Plan(
        np.concatenate([first, later]), numbers, np.concatenate([np.zeros(len(first)), rounds]).astype(np.int64)
    )


def too_few(n_players: int, recipe: Recipe, found: int, free: int) -> str:
    """Why no fit can come from the recipe's masks, and what would do."""
    everything = recipe.replicates - 1 + (1 << n_players) if n_players < 63 else recipe.budget
    if free >= MIN_UNIFORM and found < free:
        return f"design {recipe.design!r} has only {found} different masks of {n_players} players; take uniform"
    smallest = everything if n_players < 4 else recipe.replicates + 1 + MIN_UNIFORM
    return f"{n_players} players need a budget of at least {smallest} masks, not {recipe.budget}"


def blueprint(n_players: int, recipe: Recipe) -> design.Blueprint:
    """The SPEX design that the recipe's budget buys. Raises BadEvidence if it buys none, and says what would."""
    free = recipe.budget - len(opening(n_players, recipe))
    layout = design.choose(n_players, free - max(MIN_UNIFORM, free // UNIFORM_SHARE))
    if layout is None:
        raise BadEvidence(
            f"SPEX over {n_players} players needs a budget of at least {smallest_coded(n_players, recipe)} masks, "
            f"not {recipe.budget}; other methods do with fewer"
        )
    return design.blueprint(layout, raw_words(recipe.seed, SUBSPACES, design.words_needed(layout)))


def smallest_coded(n_players: int, recipe: Recipe) -> int:
    """The least budget that buys a SPEX design, or all masks if they are fewer."""
    everything = recipe.replicates - 1 + (1 << n_players)
    masks = design.smallest(n_players)
    if masks is None:
        return everything
    free = masks + MIN_UNIFORM
    while free - max(MIN_UNIFORM, free // UNIFORM_SHARE) < masks:
        free += 1
    budget = free + recipe.replicates + 1
    if n_players <= budget // LEAVE_ONE_OUT_SHARE:
        budget += n_players
    return min(budget, everything)


def coded_rounds(n_players: int, recipe: Recipe) -> tuple[Masks, NDArray[np.float64]]:
    """What a SPEX plan asks after the opening, (m, n), and in which round, (m,)."""
    coded = blueprint(n_players, recipe)
    first, levels = opening(n_players, recipe), coded.layout.levels
    each = [coded.masks(bits).reshape(-1, n_players) for bits in levels]
    asked = np.concatenate([first, *each])
    rounds = np.repeat(np.arange(-1, len(levels)), [len(first), *map(len, each)])
    _, early = np.unique(pack_masks(asked), axis=0, return_index=True)
    early = np.sort(early[early >= len(first)])
    uniform = coded_uniform(n_players, recipe, coded, recipe.budget - len(first) - len(early))
    ends = np.maximum(MIN_UNIFORM, np.ceil(len(uniform) * 2.0 ** (np.asarray(levels) - levels[-1])))
    when = np.concatenate([rounds[early], np.searchsorted(ends, np.arange(len(uniform)), side="right")])
    order = np.argsort(when, kind="stable")
    return np.concatenate([asked[early], uniform])[order], when[order].astype(np.float64)


def coded_uniform(n_players: int, recipe: Recipe, coded: design.Blueprint, count: int) -> Masks:
    """Uniform masks that are not of the SPEX design, (count, n). Raises BadEvidence for fewer than MIN_UNIFORM."""
    structured = coded.masks(coded.layout.bits).reshape(-1, n_players)
    drawn = uniform_masks(n_players, count + len(structured), recipe.seed)
    uniform = drawn[positions(structured, drawn) < 0][:count]
    if len(uniform) < MIN_UNIFORM:
        raise BadEvidence(
            f"SPEX leaves no masks to judge it by; ask all {1 << n_players} masks, or take another method"
        )
    return uniform


def fair(masks: Masks, recipe: Recipe) -> NDArray[np.bool_]:
    """Shape (m,). True for the masks that fidelity may be judged by: those that this recipe drew at random.

    One game holds what all recipes asked of it, and what a person asked on purpose: no sample of this design, so such
    masks train and judge nothing. Of few players others' masks are often ones that this plan would draw later, chosen
    as the others choose; hence only those count that were measured without a gap in the order of asking. Where not
    even its first round was asked (a recorded table, say) all masks off the corner judge: nothing better is there.
    """
    off_corner, n_players = ~is_corner(masks), masks.shape[1]
    kind, free = kind_of(recipe)[0], recipe.budget - len(opening(n_players, recipe))
    drawn = judges(n_players, recipe, max(free, int(off_corner.sum())))
    is_measured = positions(masks, drawn) >= 0
    asked = len(drawn) if is_measured.all() else int(np.argmin(is_measured))
    is_random = kind not in ("late", "spex") or all_fit(n_players, recipe)
    if is_random and asked < max(MIN_UNIFORM, min(FIRST_UNIFORM, free, len(drawn))):
        return off_corner
    return off_corner & (positions(drawn[:asked], masks) >= 0)


def judges(n_players: int, recipe: Recipe, count: int) -> Masks:
    """The random masks among the first `count` that the plan asks after its opening, in its order; of a late or SPEX
    plan only the uniform ones. More than the budget buys are those that a larger one would, but for SPEX."""
    kind, share = kind_of(recipe)
    if kind == "keep" and not all_fit(n_players, recipe):
        return kept_masks(n_players, share, count, recipe.seed)
    if kind == "paired" and not all_fit(n_players, recipe):
        return paired_masks(n_players, count, recipe.seed)
    if kind == "late" and not all_fit(n_players, recipe):
        masks, uniform = late_masks(n_players, count, recipe.seed)
        return masks[uniform]
    if kind == "spex" and not all_fit(n_players, recipe):
        coded = blueprint(n_players, recipe)
        asked, _ = coded_rounds(n_players, recipe)
        return asked[positions(coded.masks(coded.layout.bits).reshape(-1, n_players), asked) < 0]
    return uniform_masks(n_players, count, recipe.seed)


def units(masks: Masks, recipe: Recipe, uniform: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Shape (m,). Masks with the same number are predicted by fits that saw none of them; None: each by itself.

    Of the design `paired` a mask and its complement. Complements that another design drew by chance are no more alike
    than a fresh mask and one that is there; but what others asked may be the complement of each mask that judges
    (`uniform`): the pairs of one seed begin with its uniform masks.
    """
    kind, whole = kind_of(recipe)[0], all_fit(masks.shape[1], recipe)
    if kind == "paired" and not whole:
        _, pair = np.unique(pack_masks(masks ^ masks[:, :1]), axis=0, return_inverse=True)
        return pair.reshape(-1).astype(np.int64)
    partner = positions(masks, ~masks)
    is_told = uniform & (partner >= 0) & ~(uniform | is_corner(masks))[partner]
    if (kind in ("late", "spex") and not whole) or not is_told.any():
        return None
    found = np.arange(len(masks))
    found[partner[is_told]] = np.flatnonzero(is_told)
    return found
