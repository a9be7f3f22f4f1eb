"""Many masked prompts as one sequence: what two of them share at their beginning is computed once.

The prompts become a tree. Each node is a run of tokens that sees its ancestors and itself, at the positions that it has
in its own prompt; so one pass gives every prompt exactly the numbers that it would get alone. Standard library and
numpy only: the model's process reads it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_TOKENS = 640
"""Of one sequence: attention costs the square of it, and with more there is little more to share."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in token-id space. Template, system prompt and question stand in `before` and `after`: always kept."""

    before: Ids
    segments: tuple[Ids, ...]
    after: Ids

    def kept(self, mask: Sequence[bool]) -> Ids:
        """The ids with the segments of a mask (n,) deleted that are False there."""
        inside = [segment for segment, is_kept in zip(self.segments, mask, strict=True) if is_kept]
        return (*self.before, *(token for segment in inside for token in segment), *self.after)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """One sequence of T tokens that holds several prompts with the same output."""

    rows: tuple[int, ...]
    """Which of the masks, in order."""
    ids: NDArray[np.int64]
    """Shape (T,)."""
    positions: NDArray[np.int64]
    """Shape (T,). Where each token stands in its own prompt."""
    sees: NDArray[np.bool_]
    """Shape (T, T). Which tokens (columns) each token (row) attends to."""
    read_at: NDArray[np.int64]
    """Shape (rows, output tokens). The tokens whose next-token distribution is that of the output's tokens."""


class Tree:
    """Grows by runs of tokens."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.ends: dict[tuple[bool, ...], int] = {}
        self.parents: list[int] = []
        """The token before each token in its own prompt; -1 for the first."""

    def grow(self, last: int, run: Sequence[int]) -> int:
        """Add a run after token `last`; the number of its last token."""
        for token in run:
            self.parents.append(last)
            self.positions.append(self.positions[last] + 1 if last >= 0 else 0)
            self.ids.append(token)
            last = len(self.ids) - 1
        return last

    def sees(self) -> NDArray[np.bool_]:
        seen = np.eye(len(self.ids), dtype=np.bool_)
        for token, parent in enumerate(self.parents):
            if parent >= 0:
                seen[token] |= seen[parent]
        return seen


def pack(prompt: Prompt, output: Ids, masks: NDArray[np.bool_], most: int = MOST_TOKENS) -> Iterator[Packed]:
    """All masks (m, n) in as few sequences as hold them, similar ones together. `output` has at least one token."""
    waiting = [int(row) for row in np.lexsort(masks.T[::-1])] if masks.shape[1] else list(range(len(masks)))
    while waiting:
        tree, rows, leaves = Tree(), list[int](), list[int]()
        root = tree.grow(-1, prompt.before)
        tree.ends[()] = root
        while waiting and (not rows or len(tree.ids) + longest(prompt, output) <= most):
            row = waiting.pop(0)
            rows.append(row)
            leaves.append(branch(tree, prompt, output, tuple(map(bool, masks[row]))))
        read = np.asarray(leaves)[:, None] + np.arange(-len(output) + 1, 1)
        ids, positions = np.asarray(tree.ids, dtype=np.int64), np.asarray(tree.positions, dtype=np.int64)
        yield Packed(tuple(rows), ids, positions, tree.sees(), read)


def longest(prompt: Prompt, output: Ids) -> int:
    """The most tokens that one more prompt can add."""
    return sum(map(len, prompt.segments)) + len(prompt.after) + len(output)


def branch(tree: Tree, prompt: Prompt, output: Ids, mask: tuple[bool, ...]) -> int:
    """Add one masked prompt with all of the output but its last token; the number of its last token."""
    last = tree.ends[()]
    for at, segment in enumerate(prompt.segments):
        path = mask[: at + 1]
        if path not in tree.ends:
            tree.ends[path] = tree.grow(last, segment) if mask[at] else last
        last = tree.ends[path]
    return tree.grow(last, (*prompt.after, *output[:-1]))
