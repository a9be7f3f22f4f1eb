"""Spectrum: the one result type. Everything else about a game is derived from it.

Convention of both SPEX papers: mask bit 1 = player KEPT,

    v(mask) = sum_T F(T) * prod_{i in T} (-1)^{mask_i}

so F({i}) < 0 when player i raises the value, and F of the empty set is the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """A sparse Fourier (Walsh) spectrum over `n_players` players.

    Invariants: supports are distinct; the empty set is always among them (the
    constant is never dropped); rows are sorted by size, then by players.
    """

    n_players: int
    supports: NDArray[np.uint64]
    """Shape (terms, ceil(n/64)). Bit j of word w is player 64*w + j."""
    coefficients: NDArray[np.float64]
    """Shape (terms,). F(T), in the value's unit."""
    standard_errors: NDArray[np.float64] | None = None
    """Shape (terms,), or None where the method gives none."""

    def __len__(self) -> int:
        return int(self.coefficients.shape[0])

    @property
    def constant(self) -> float:
        """F of the empty set: the mean value over uniform masks."""
        return float(self.coefficients[0])

    def orders(self) -> NDArray[np.int64]:
        """Shape (terms,). How many players each term joins."""
        sizes: NDArray[np.int64] = np.bitwise_count(self.supports).sum(axis=1, dtype=np.int64)
        return sizes

    def players(self) -> list[tuple[int, ...]]:
        """The terms as sorted tuples of player numbers."""
        return unpack_supports(self.supports, self.n_players)

    @classmethod
    def from_terms(
        cls,
        n_players: int,
        terms: Sequence[Iterable[int]],
        coefficients: Sequence[float] | NDArray[np.float64],
        standard_errors: Sequence[float] | NDArray[np.float64] | None = None,
    ) -> Spectrum:
        """Build from tuples of players in any order; the constant is added as 0 if it is missing.

        Raises ValueError for a player outside 0..n-1, a player or a term given twice, or unequal lengths.
        """
        sets = [tuple(sorted(term)) for term in terms]
        values = [float(c) for c in coefficients]
        errors = None if standard_errors is None else [float(e) for e in standard_errors]
        if len(set(sets)) != len(sets) or any(len(set(term)) != len(term) for term in sets):
            raise ValueError("a spectrum's terms must be distinct, and so must the players of each")
        if len(values) != len(sets) or (errors is not None and len(errors) != len(sets)):
            raise ValueError("a spectrum needs one coefficient, and one standard error if any, for each term")
        if () not in sets:
            sets.append(())
            values.append(0.0)
            if errors is not None:
                errors.append(0.0)
        order = sorted(range(len(sets)), key=lambda i: (len(sets[i]), sets[i]))
        return cls(
            n_players,
            pack_supports([sets[i] for i in order], n_players),
            np.asarray([values[i] for i in order], dtype=np.float64),
            None if errors is None else np.asarray([errors[i] for i in order], dtype=np.float64),
        )


def pack_supports(terms: Sequence[Sequence[int]], n_players: int) -> NDArray[np.uint64]:
    """Tuples of players -> bitsets, shape (terms, ceil(n/64)), at least one word."""
    words = max(1, -(-n_players // WORD_BITS))
    packed = np.zeros((len(terms), words), dtype=np.uint64)
    for row, term in enumerate(terms):
        for player in term:
            if not 0 <= player < n_players:
                raise ValueError(f"player {player} is outside 0..{n_players - 1}")
            packed[row, player // WORD_BITS] |= np.uint64(1) << np.uint64(player % WORD_BITS)
    return packed


def unpack_supports(supports: NDArray[np.uint64], n_players: int) -> list[tuple[int, ...]]:
    """Bitsets -> sorted tuples of players, in the rows' order."""
    bits = np.unpackbits(supports.astype("<u8").view(np.uint8), axis=1, bitorder="little")[:, :n_players]
    return [tuple(int(i) for i in np.flatnonzero(row)) for row in bits]
