"""Boosted trees, and their exact Fourier transform.

A tree over {0,1} features is a sum over leaves of value times the indicator of
the leaf's path, and the indicator of a path through players P is
prod_{i in P} (1 + s_i z_i) / 2 with z_i = 1 - 2 x_i and s_i = +1 where the path
takes x_i = 0. Multiplied out, a leaf of depth d is 2^d Fourier terms; that is
the recursion N[S] = (L[S] + R[S]) / 2, N[S + i] = (L[S] - R[S]) / 2
(ProxySPEX, arXiv 2505.17495; Gorji et al., arXiv 2410.06300), unrolled so that
all leaves of all trees are done at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.walsh import Supports, gather
from spex_proxy.facts.evidence import Masks, Values
from spex_proxy.facts.spectrum import WORD_BITS, Spectrum

MAX_DEPTH = 8
"""A tree of depth d has up to 4^d terms."""


SUBSAMPLE = 0.7
"""Share of the rows that each tree sees (seeded): on noisy games worth up to .03 of R2."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of trees to grow, and how many at most."""

    depth: int
    eta: float
    """Learning rate."""
    rounds: int
    """Most trees."""


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """An ensemble as plain arrays over all nodes of all trees. Prediction = base + one leaf per tree."""

    n_players: int
    base: float
    """xgboost's base_score, which a dump of the trees leaves out."""
    roots: NDArray[np.int64]
    """Shape (trees,). Node number of each tree's root, in the order of boosting."""
    player: NDArray[np.int64]
    """Shape (nodes,). Player asked for; -1 at a leaf."""
    zero: NDArray[np.int64]
    """Shape (nodes,). Where a mask goes that has the player's bit 0."""
    one: NDArray[np.int64]
    """Shape (nodes,). Where it goes with bit 1."""
    leaf: NDArray[np.float64]
    """Shape (nodes,). The leaf's value (learning rate included), float32 in xgboost; 0 inside."""

    def first(self, trees: int) -> Forest:
        """The ensemble as it was after so many rounds."""
        return Forest(self.n_players, self.base, self.roots[:trees], self.player, self.zero, self.one, self.leaf)


def grow(
    masks: Masks, values: Values, shape: Shape, seed: int, held_out: tuple[Masks, Values] | None = None
) -> tuple[Forest, NDArray[np.float64]]:
    """Grow `shape.rounds` trees on masks (m, n) and values (m,).

    Also returns the mean squared error on `held_out` after each round, shape
    (rounds,), or an empty array. One thread, one seed: equal input gives equal
    trees on one machine. Values should be centred: xgboost works in float32.
    Errors are taken from the grown arrays: xgboost's own evaluation, round by round, took as long as growing.
    """
    import xgboost  # noqa: PLC0415 - heavy, and nothing else here needs it

    if not 1 <= shape.depth <= MAX_DEPTH:
        raise ValueError(f"trees of depth {shape.depth} are outside 1..{MAX_DEPTH}")
    parameters = {
        "objective": "reg:squarederror",
        "tree_method": "hist",
        "max_depth": shape.depth,
        "eta": shape.eta,
        "base_score": 0.0,
        "subsample": SUBSAMPLE,
        "nthread": 1,
        "seed": seed & 0x7FFFFFFF,
        "verbosity": 0,
    }
    data = xgboost.DMatrix(masks.astype(np.float32), values, nthread=1)
    booster = xgboost.Booster(parameters, [data])
    for number in range(shape.rounds):
        booster.update(data, number)
    grown = read_model(bytes(booster.save_raw("json")), masks.shape[1])
    if held_out is None:
        return grown, np.zeros(0)
    after = grown.base + np.cumsum(by_tree(grown, held_out[0]), axis=0)
    return grown, ((after - held_out[1]) ** 2).mean(axis=1)


def by_tree(forest: Forest, masks: Masks) -> NDArray[np.float64]:
    """What each tree adds to each mask's prediction, (trees, m)."""
    nodes = np.repeat(forest.roots[:, None], len(masks), axis=1)
    rows = np.arange(len(masks))[None, :]
    while True:
        player = forest.player[nodes]
        inside = player >= 0
        if not inside.any():
            return forest.leaf[nodes]
        bit = masks[rows, np.maximum(player, 0)]
        nodes = np.where(inside, np.where(bit, forest.one[nodes], forest.zero[nodes]), nodes)


def read_model(raw: bytes, n_players: int) -> Forest:
    """xgboost's own JSON model -> plain arrays.

    xgboost goes left when x < threshold, and masks have no missing values; for
    x in {0, 1} that is read off once per node, so that a threshold outside
    (0, 1] is still right. At a leaf, `split_conditions` holds the value.
    """
    learner: dict[str, Any] = json.loads(raw)["learner"]
    base = float(str(learner["learner_model_param"]["base_score"]).strip("[]"))
    trees = learner["gradient_booster"]["model"]["trees"]
    sizes = np.asarray([len(tree["left_children"]) for tree in trees], dtype=np.int64)
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    start = np.repeat(roots, sizes)

    def column(name: str) -> NDArray[np.float64]:
        return np.asarray([x for tree in trees for x in tree[name]], dtype=np.float64)

    left, right = column("left_children"), column("right_children")
    inside = left >= 0
    left, right = left + start, right + start
    condition = column("split_conditions").astype(np.float32)
    return Forest(
        n_players,
        base,
        roots,
        np.where(inside, column("split_indices"), -1).astype(np.int64),
        np.where(condition > 0, left, right).astype(np.int64),
        np.where(condition > 1, left, right).astype(np.int64),
        np.where(inside, 0.0, condition).astype(np.float64),
    )


def fourier(forest: Forest) -> Spectrum:
    """The exact spectrum of an ensemble, base_score in the constant."""
    words = max(1, -(-forest.n_players // WORD_BITS))
    supports = [np.zeros((1, words), dtype=np.uint64)]
    coefficients = [np.asarray([forest.base])]
    for path, value in leaves(forest):
        terms, signed = expand(path, value, words)
        supports.append(terms)
        coefficients.append(signed)
    return gather(forest.n_players, np.concatenate(supports), np.concatenate(coefficients))


def leaves(forest: Forest) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """All leaves, grouped by how many players their path asks for.

    Per group d: path (leaves, d) int64, `player` for bit 0 and `~player` for bit
    1; and values (leaves,). A player met again on a path only goes on the way
    that it went before, so impossible leaves never show up.
    """
    found = []
    nodes, path = forest.roots, np.zeros((len(forest.roots), 0), dtype=np.int64)
    while len(nodes):
        player = forest.player[nodes]
        is_leaf = player < 0
        found.append((path[is_leaf], forest.leaf[nodes[is_leaf]]))
        nodes, path, player = nodes[~is_leaf], path[~is_leaf], player[~is_leaf]
        was_zero = (path == player[:, None]).any(axis=1)
        was_one = (path == ~player[:, None]).any(axis=1)
        again = was_zero | was_one
        # A repeated player is asked once more with the known answer: an unused column, dropped in `expand`.
        zero, one = ~was_one, ~was_zero
        step_zero = np.where(again, UNUSED, player)[zero]
        step_one = np.where(again, UNUSED, ~player)[one]
        nodes = np.concatenate([forest.zero[nodes[zero]], forest.one[nodes[one]]])
        path = np.concatenate([np.column_stack([path[zero], step_zero]), np.column_stack([path[one], step_one])])
    return found


UNUSED = np.iinfo(np.int64).max
"""In a path: this level asked for a player that the path had already fixed."""


def expand(path: NDArray[np.int64], value: NDArray[np.float64], words: int) -> tuple[Supports, NDArray[np.float64]]:
    """Multiply out prod (1 + s_i z_i) / 2 for leaves of one group: 2^d terms per leaf.

    Returns supports (leaves * 2^d, words) and coefficients, equal supports not yet summed.
    """
    supports = np.zeros((len(value), 1, words), dtype=np.uint64)
    coefficients = value[:, None]
    for literal in path.T:
        used = literal != UNUSED
        sign = np.where(used, np.where(literal >= 0, 0.5, -0.5), 0.0)
        half = np.where(used, 0.5, 1.0)
        player = np.where(used, np.where(literal >= 0, literal, ~literal), 0)
        bit = np.zeros((len(value), words), dtype=np.uint64)
        shift = (player % WORD_BITS).astype(np.uint64)
        bit[np.arange(len(value)), player // WORD_BITS] = np.uint64(1) << shift
        supports = np.concatenate([supports, supports | bit[:, None, :]], axis=1)
        coefficients = np.concatenate([coefficients * half[:, None], coefficients * sign[:, None]], axis=1)
    return supports.reshape(-1, words), coefficients.reshape(-1)
