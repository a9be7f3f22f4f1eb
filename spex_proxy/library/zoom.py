"""Coarse to fine: first the parts of a tree as players, then, inside the parts that matter, their own parts.

Thousands of sentences are too many players for a few hundred masks; ten documents are not. Each level is a study of
its own: the parts that the level above found to matter, split, with everything else kept (as in a prompt that is
otherwise left alone). So a level's spectrum says what its players do while the rest is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import interactions
from spex_proxy.facts.evidence import Masks
from spex_proxy.library.asking import ValueFunction, explain
from spex_proxy.library.study import Study

SHARE = 0.9
"""Of a level's total influence, that of the parts that are split."""
MOST_PLAYERS = 64
"""At a level below the first; the weakest parts stay whole beyond that."""

Tree = Sequence[Any]
"""Parts in their order: a name, or (name, its own parts)."""


@dataclass(frozen=True, slots=True)
class Part:
    """A player of some level."""

    name: str
    leaves: tuple[int, ...]
    """Columns of the value function's masks."""
    parts: tuple[Part, ...] = ()


def explain_tree(
    value_function: ValueFunction, tree: Tree, *, share: float = SHARE, most_players: int = MOST_PLAYERS, **how: Any
) -> Study:
    """Explain a function of many players that come in groups.

    `tree`: names, or pairs of a name and its parts, to any depth: `[("Document 1", ["a", "b"]), "question"]`.
    `value_function` gets masks over the leaves in their order, (m, leaves). A level splits the fewest parts that carry
    `share` of its influence, and has at most `most_players` players. `how`: as for `explain`; a `budget` is
    for each level.

    Returns the study of the finest level; `coarser` leads to the one above, `levels` lists all. Its players are the
    parts that were reached, each named by its path. Raises as `explain` does; ValueError for a tree that is none.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it is a share of the influence, above 0 and at most 1")
    players = parts_of(tree)
    n_leaves = 1 + max(leaf for part in players for leaf in part.leaves)
    study: Study | None = None
    while True:
        found = explain(spread(value_function, players, n_leaves), [part.name for part in players], **how)
        study = replace(found, coarser=study)
        chosen = to_split(players, interactions.influence(study.spectrum), share, most_players)
        if study.verdict == "nothing_to_explain" or not any(players[at].parts for at in chosen):
            return study
        players = tuple(below for at in chosen for below in (players[at].parts or (players[at],)))


def parts_of(tree: Tree, path: str = "", first: int = 0) -> tuple[Part, ...]:
    """The tree's first level; leaves are counted from `first` on. Raises ValueError for what is no tree."""
    if isinstance(tree, str) or not len(tree):
        raise ValueError(f"{tree!r} is no list of parts; give names, or pairs of a name and its parts")
    found: list[Part] = []
    for node in tree:
        if isinstance(node, str):
            found.append(Part(path + node, (first,)))
        elif isinstance(node, tuple) and len(node) == 2 and isinstance(node[0], str):
            below = parts_of(node[1], f"{path}{node[0]} > ", first)
            found.append(Part(path + node[0], tuple(leaf for part in below for leaf in part.leaves), below))
        else:
            raise ValueError(f"{node!r} is no part; give a name, or a pair of a name and its parts")
        first = found[-1].leaves[-1] + 1
    return tuple(found)


def to_split(players: Sequence[Part], influences: NDArray[np.float64], share: float, most: int) -> list[int]:
    """The fewest players that carry the share of all influence, as long as their parts are not too many; in order."""
    return interactions.strongest(influences, [max(1, len(part.parts)) for part in players], share, most)


def spread(value_function: ValueFunction, players: Sequence[Part], n_leaves: int) -> ValueFunction:
    """The function of these players' masks: their leaves kept or not, all others kept."""
    leaves = np.concatenate([np.asarray(part.leaves) for part in players])
    owner = np.repeat(np.arange(len(players)), [len(part.leaves) for part in players])

    def value(masks: Masks) -> Any:
        every = np.ones((len(masks), n_leaves), dtype=np.bool_)
        every[:, leaves] = masks[:, owner]
        return value_function(every)

    return value
