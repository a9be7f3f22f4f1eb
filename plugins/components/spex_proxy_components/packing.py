"""Questions that begin alike go through the model once: a pack is a tree of tokens in one row.

Each token sees those on its own way to the root and no others, and stands at its depth. So what the model computes for
a question in a pack is what it computes for the question alone, and no padding is needed. For one mask, questions
that share their instructions or examples cost no more than what they don't share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spex_proxy_components.questions import Asked

MOST_TOKENS = 512
"""Of a pack: attention looks at all pairs of its tokens."""
ANSWER, CONTRAST = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Some questions in one row of t tokens, and the s places whose predictions are read."""

    questions: tuple[int, ...]
    """Numbers of the questions, (q,)."""
    tokens: NDArray[np.int64]
    """Shape (t,)."""
    depths: NDArray[np.int64]
    """Shape (t,). Position of each token in its question."""
    sees: NDArray[np.bool_]
    """Shape (t, t). Row: a token; True for itself and what precedes it in its question."""
    places: NDArray[np.int64]
    """Shape (s,). Which token's prediction."""
    wanted: NDArray[np.int64]
    """Shape (s,). The token id whose log-probability is read there."""
    owners: NDArray[np.int64]
    """Shape (s,). Whose it is, as a position in `questions`."""
    sides: NDArray[np.int64]
    """Shape (s,). ANSWER or CONTRAST."""

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(slots=True)
class Tree:
    """A pack in the making."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    children: dict[tuple[int, int], int] = field(default_factory=dict)

    def walk(self, ids: Sequence[int], node: int = -1) -> list[int]:
        """The nodes of a sequence from `node` on; those that are missing are added."""
        path = []
        for token in ids:
            following = self.children.get((node, token))
            if following is None:
                following = len(self.tokens)
                self.children[node, token] = following
                self.tokens.append(token)
                self.parents.append(node)
            path.append(node := following)
        return path

    def growth(self, asked: Asked) -> int:
        """How many tokens a question would add."""
        node, known = -1, 0
        for token in asked.prompt:
            following = self.children.get((node, token))
            if following is None:
                break
            node, known = following, known + 1
        return len(asked.prompt) - known + len(asked.answer) + len(asked.contrast)


def pack(questions: Sequence[Asked], among: Sequence[int], most: int = MOST_TOKENS) -> list[Pack]:
    """The questions numbered `among`, neighbours being those that begin alike, in packs of about `most` tokens."""
    packs: list[Pack] = []
    group: list[int] = []
    tree = Tree()
    for number in sorted(among, key=lambda each: (questions[each].prompt, each)):
        if group and len(tree.tokens) + tree.growth(questions[number]) > most:
            packs.append(packed(questions, group))
            group, tree = [], Tree()
        add(tree, questions[number])
        group.append(number)
    return [*packs, packed(questions, group)] if group else packs


def add(tree: Tree, asked: Asked) -> list[tuple[int, int, int]]:
    """(place, wanted token, side) of each token of both answers. An answer's last token need not be in the tree."""
    last = tree.walk(asked.prompt)[-1]
    read = []
    for side, answer in ((ANSWER, asked.answer), (CONTRAST, asked.contrast)):
        places = [last, *tree.walk(answer[:-1], last)]
        read += [(place, token, side) for place, token in zip(places, answer, strict=False)]
    return read


def packed(questions: Sequence[Asked], group: Sequence[int]) -> Pack:
    tree = Tree()
    read = [(*each, owner) for owner, number in enumerate(group) for each in add(tree, questions[number])]
    places, wanted, sides, owners = (np.asarray(column, dtype=np.int64) for column in zip(*read, strict=True))
    size = len(tree.tokens)
    sees, depths = np.eye(size, dtype=np.bool_), np.zeros(size, dtype=np.int64)
    for node, parent in enumerate(tree.parents):
        if parent >= 0:  # a parent is always numbered before its children
            sees[node] |= sees[parent]
            depths[node] = depths[parent] + 1
    tokens = np.asarray(tree.tokens, dtype=np.int64)
    return Pack(tuple(group), tokens, depths, sees, places, wanted, owners, sides)
