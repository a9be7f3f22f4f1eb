"""Which masks to ask, and in what order: a deterministic function of (players, recipe).

Only PCG64's raw words are used. NumPy promises that bit generators keep their
streams; it does not promise that of `Generator.integers` and its kin, and a
resumed job must ask the masks that it would have asked before the upgrade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.spex import design
from spex_proxy.engine.walsh import all_masks, pack_masks
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Masks, Replicates
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import WORD_BITS

FIRST_UNIFORM = 32
"""Uniform masks after the first round; every later round doubles them."""
MIN_UNIFORM = 10
"""Two to each of five folds: below that an out-of-fold R2 is no figure at all."""
LEAVE_ONE_OUT_SHARE = 8
"""Leave-one-outs are asked when they cost at most 1/8 of the budget. They answer the first question
everybody has (what if this one sentence were gone?), but a uniform mask teaches a spectrum more."""
MAX_SHUFFLED_PLAYERS = 16
"""Up to here all 2^n masks are shuffled; above, draws are made and the rare repeats dropped."""

UNIFORM_SHARE = 8
"""One mask in eight of a SPEX plan is uniform."""
MOST_DRAWS = 64
"""Masks are drawn at most so many times over in search of different ones."""

TAILS, LATE_UNIFORM = 8, 8
"""Of a late design: masks that begin alike, and uniform masks to each three such groups."""

MASKS, FOLDS, TREES, BOOTSTRAP, SUBSET, SUBSPACES, LATE = range(7)
"""Independent streams under one seed."""


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


def raw_words(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    """`count` uniform uint64 words; a longer call begins with the same words.

    Raises ValueError for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"the seed is {seed}; seeds are 0 or greater")
    return np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(count)


def shuffled(count: int, seed: int, stream: int) -> NDArray[np.int64]:
    """A seeded order of 0..count-1, shape (count,)."""
    return np.argsort(raw_words(seed, stream, count), kind="stable").astype(np.int64)


def is_corner(masks: Masks) -> NDArray[np.bool_]:
    """Shape (m,). True for the full, the empty and the leave-one-out masks, which are asked on purpose."""
    kept: NDArray[np.int64] = masks.sum(axis=1, dtype=np.int64)
    corner: NDArray[np.bool_] = (kept == 0) | (kept >= masks.shape[1] - 1)
    return corner


def uniform_masks(n_players: int, count: int, seed: int) -> Masks:
    """Distinct uniform masks off the corner, (count, n); fewer when no more exist.

    A larger count begins with the same masks.
    """
    if n_players <= MAX_SHUFFLED_PLAYERS:
        every = all_masks(n_players)[shuffled(1 << n_players, seed, MASKS)]
        return every[~is_corner(every)][:count]
    words = -(-n_players // WORD_BITS)
    count = min(count, (1 << n_players) - n_players - 2)
    draws = count + WORD_BITS
    while True:
        raw = raw_words(seed, MASKS, draws * words).reshape(draws, words)
        bits = np.unpackbits(raw.astype("<u8").view(np.uint8), axis=1, bitorder="little")
        masks = bits[:, :n_players].astype(np.bool_)
        _, first = np.unique(pack_masks(masks), axis=0, return_index=True)
        masks = masks[np.sort(first)]
        masks = masks[~is_corner(masks)]
        if len(masks) >= count:
            return masks[:count]
        draws *= 2


def paired_masks(n_players: int, count: int, seed: int) -> Masks:
    """Distinct uniform masks, each followed by its complement, neither in the corner; at most count, (count, n).

    A larger count begins with the same masks.
    """
    base = uniform_masks(n_players, count + WORD_BITS, seed)
    base = base[~is_corner(~base)]
    _, first = np.unique(pack_masks(base ^ base[:, :1]), axis=0, return_index=True)
    base = base[np.sort(first)]
    return np.stack([base, ~base], axis=1).reshape(-1, n_players)[: count // 2 * 2]


def kept_masks(n_players: int, share: float, count: int, seed: int) -> Masks:
    """Distinct masks off the corner that keep each player with probability `share` (to 1/65536): at most count.

    Fewer when the share is so near to 0 or 1 that hardly any other masks come. A
    larger count begins with the same masks.
    """
    words, least = -(-n_players // 4), round(share * 65536)
    draws = count + WORD_BITS
    while True:
        raw = raw_words(seed, MASKS, draws * words).astype("<u8").view("<u2").reshape(draws, -1)
        masks = raw[:, :n_players] < least
        _, first = np.unique(pack_masks(masks), axis=0, return_index=True)
        masks = masks[np.sort(first)]
        masks = masks[~is_corner(masks)]
        if len(masks) >= count or draws >= MOST_DRAWS * (count + WORD_BITS):
            return masks[:count]
        draws *= 2


def late_masks(n_players: int, count: int, seed: int) -> tuple[Masks, NDArray[np.bool_]]:
    """Distinct masks off the corner, most in groups that keep and leave the same of the first half of the players, so
    that a server with a prefix cache computes those once a group; at most count, (count, n), and which are uniform.

    MIN_UNIFORM uniform ones, then over and over three groups of TAILS and LATE_UNIFORM uniform ones. Each mask by
    itself is uniform; those of a group are not independent of each other. A larger count begins with the same masks.
    """
    rounds = 1
    while True:
        judged = uniform_masks(n_players, MIN_UNIFORM + LATE_UNIFORM * rounds, seed)
        groups = _late_groups(n_players, 3 * rounds, seed).reshape(rounds, -1, n_players)
        parts, marks = [judged[:MIN_UNIFORM]], [np.ones(len(judged[:MIN_UNIFORM]), dtype=np.bool_)]
        for number, group in enumerate(groups):
            some = judged[MIN_UNIFORM + LATE_UNIFORM * number :][:LATE_UNIFORM]
            parts += [group, some]
            marks += [np.zeros(len(group), dtype=np.bool_), np.ones(len(some), dtype=np.bool_)]
        masks, uniform = np.concatenate(parts), np.concatenate(marks)
        _, first = np.unique(pack_masks(masks), axis=0, return_index=True)
        keep = np.sort(first)
        keep = keep[~is_corner(masks[keep])]
        if len(keep) >= count or len(masks) >= MOST_DRAWS * (count + WORD_BITS):
            return masks[keep[:count]], uniform[keep[:count]]
        rounds *= 2


def _late_groups(n_players: int, count: int, seed: int) -> Masks:
    """Shape (count, TAILS, n): all of a group begin with the same half."""
    words = -(-n_players // WORD_BITS)
    raw = raw_words(seed, LATE, count * (1 + TAILS) * words).reshape(count, 1 + TAILS, words)
    bits = np.unpackbits(raw.astype("<u8").view(np.uint8), axis=2, bitorder="little")[:, :, :n_players]
    masks = bits[:, 1:].astype(np.bool_)
    half = n_players // 2
    masks[:, :, :half] = bits[:, :1, :half].astype(np.bool_)
    return masks


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


def positions(have: Masks, wanted: Masks) -> NDArray[np.int64]:
    """For each mask of `wanted` (w, n) the last row of `have` (h, n) that equals it, -1 if none does: (w,)."""
    both = pack_masks(np.concatenate([have, wanted]))
    found, inverse = np.unique(both, axis=0, return_inverse=True)
    where = np.full(len(found), -1, dtype=np.int64)
    inverse = inverse.reshape(-1)
    where[inverse[: len(have)]] = np.arange(len(have))
    return where[inverse[len(have) :]]


def fair(masks: Masks, recipe: Recipe) -> NDArray[np.bool_]:
    """Shape (m,). True for the masks that fidelity may be judged by: those that the design drew at random.

    All off the corner, but of a late or SPEX plan only its uniform ones.
    """
    off_corner, kind = ~is_corner(masks), kind_of(recipe)[0]
    if kind not in ("late", "spex") or all_fit(masks.shape[1], recipe):
        return off_corner
    if kind == "late":
        free = recipe.budget - len(opening(masks.shape[1], recipe))
        planned, uniform = late_masks(masks.shape[1], free, recipe.seed)
        return off_corner & (positions(planned[uniform], masks) >= 0)
    coded = blueprint(masks.shape[1], recipe)
    asked, _ = coded_rounds(masks.shape[1], recipe)
    structured = coded.masks(coded.layout.bits).reshape(-1, masks.shape[1])
    return off_corner & (positions(asked, masks) >= 0) & (positions(structured, masks) < 0)
