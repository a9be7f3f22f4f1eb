"""Which masks SPEX asks (arXiv 2502.13870, section 4): groups of random subspaces, shifted by a code's parities.

Group c, point l, offset i:  mask = M_c l + d_i  (mod 2), with M_c (n, b) random bits, l in {0,1}^b, d_0 = 0 and
d_1..d_p the rows of a BCH code's parity matrix. The transform over l then adds up, in bin j, the
terms k with M_c^T k = j, each with the signs (-1)^<d_i, k>: the parities of k as a code word.

A design of b bits begins with those of fewer bits (l with leading zeros), each
complete in itself: these are its levels, and the rounds of asking.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.spex.bch import Code, code, parity_count
from spex_proxy.engine.walsh import Supports, characters, pack_masks
from spex_proxy.facts.evidence import Masks
from spex_proxy.facts.spectrum import WORD_BITS

GROUPS = (3, 4, 5)
"""Three groups peel up to .82 terms a bin (the 2-core of random 3-uniform hypergraphs); four or five fill a
budget that does not reach the next power of two."""
ENOUGH_BINS = {5: 24, 4: 12, 3: 12, 2: 12, 1: 12}
"""t, how many wrong bits are corrected (players of a term, or fewer and some wrong signs), and the bins from which on
it is chosen. Measured on planted games: a larger t is worth more than more bins."""
MOST_BITS = 12
LEVELS = 4
"""Most rounds: the first asks an eighth of the last."""
SPARE_COLUMNS = 64
"""Random columns beyond those needed; enough that b independent ones are among them (chance of failing < 2^-60)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a budget buys. Pure numbers."""

    n_players: int
    bits: int
    """b: 2^b bins in each group."""
    groups: int
    t: int
    """Players of a term that the code corrects."""
    offsets: int
    """p + 1."""

    @property
    def masks(self) -> int:
        """Masks asked at most: the groups share those of l = 0."""
        return ((self.groups << self.bits) - self.groups + 1) * self.offsets

    @property
    def levels(self) -> tuple[int, ...]:
        """Bits after each round."""
        return tuple(range(max(1, self.bits - LEVELS + 1), self.bits + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Blueprint:
    """A design written out."""

    layout: Layout
    code: Code
    columns: Masks
    """Shape (groups, bits, n). Row l of group c = column l of M_c."""
    offsets: Masks
    """Shape (p + 1, n). The first keeps nobody."""

    def masks(self, bits: int) -> Masks:
        """Shape (groups, 2^bits, p + 1, n)."""
        points = (np.arange(1 << bits)[:, None] >> np.arange(bits)) & 1
        bases = (points @ self.columns[:, :bits].astype(np.int64)) & 1
        return bases.astype(np.bool_)[:, :, None, :] ^ self.offsets

    def bins(self, supports: Supports, bits: int) -> NDArray[np.int64]:
        """M_c^T k: the bin of each term in each group, shape (groups, terms)."""
        flat = self.columns[:, :bits].reshape(-1, self.layout.n_players)
        odd = characters(flat, supports).reshape(self.layout.groups, bits, -1) < 0
        return np.tensordot(1 << np.arange(bits), odd, axes=(0, 1))

    def signatures(self, supports: Supports) -> NDArray[np.float64]:
        """(-1)^<d_i, k>, shape (terms, p + 1)."""
        return characters(self.offsets, supports).T


def layouts(n_players: int, most_bits: int = MOST_BITS) -> list[Layout]:
    """Every layout that could be asked of n players: no more bits than players."""
    sizes = range(2, min(most_bits, n_players) + 1)
    offsets = {t: parity_count(n_players, t) + 1 for t in ENOUGH_BINS if t <= n_players}
    return [Layout(n_players, b, c, t, rows) for t, rows in offsets.items() for b in sizes for c in GROUPS]


def choose(n_players: int, budget: int) -> Layout | None:
    """The layout for so many masks: the largest t that leaves enough bins, then most bins. None if none is so small."""

    def worth(each: Layout) -> tuple[int, int]:
        bins = each.groups << each.bits
        return (each.t if bins >= ENOUGH_BINS[each.t] else 0, bins)

    return max((each for each in layouts(n_players) if each.masks <= budget), key=worth, default=None)


def smallest(n_players: int) -> int | None:
    """Fewest masks that any layout asks; None for fewer than two players, for whom there is no layout."""
    return min((each.masks for each in layouts(n_players, 2)), default=None)


def blueprint(layout: Layout, words: NDArray[np.uint64]) -> Blueprint:
    """The design that `words_needed` random words give. The same words give every smaller b the same first columns."""
    n = layout.n_players
    per_column = -(-n // WORD_BITS)
    drawn = words.reshape(-1, layout.groups, per_column)
    bits = np.unpackbits(drawn.astype("<u8").view(np.uint8), axis=-1, bitorder="little")[..., :n].astype(np.bool_)
    columns = np.stack([independent(bits[:, group], layout.bits) for group in range(layout.groups)])
    this = code(n, layout.t)
    return Blueprint(layout, this, columns, np.concatenate([np.zeros((1, n), dtype=np.bool_), this.parity]))


def words_needed(layout: Layout) -> int:
    """How many random words `blueprint` wants."""
    return (layout.bits + SPARE_COLUMNS) * layout.groups * -(-layout.n_players // WORD_BITS)


def independent(rows: Masks, count: int) -> Masks:
    """The first `count` rows that are linearly independent over GF(2): no two points of a group then share a mask."""
    packed = [int.from_bytes(row.astype("<u8").tobytes(), "little") for row in pack_masks(rows)]
    basis: list[int] = []
    chosen: list[int] = []
    for number, row in enumerate(packed):
        rest = row
        for vector in basis:
            rest = min(rest, rest ^ vector)
        if rest:
            basis.append(rest)
            chosen.append(number)
        if len(chosen) == count:
            return rows[chosen]
    raise ValueError(f"{len(chosen)} of {len(rows)} random columns are independent, not {count}")
