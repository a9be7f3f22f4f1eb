"""The indices of cooperative game theory, all of them closed forms of a spectrum.

Each is linear, and treats players alike, so each is a table c over sizes:

    I(T) = sum over S >= T of c[|S|, |T|] x(S),    x = F (Fourier) or M (Moebius).

Two such maps one after the other are a third, (c2 c1)[s, t] = sum_r C(s - t, r - t) c1[s, r] c2[r, t];
tables are computed in exact fractions, because the alternating sums in them grow like 3^s.
Formulas: after ProxySPEX (arXiv 2505.17495), A.1; l is the largest order, sizes s and t:

    fourier   F(T)                                             the spectrum itself
    moebius   M(T) = (-2)^t sum F(S)                           Harsanyi dividends
    banzhaf   BII(T) = (-2)^t F(T)                             Grabisch & Roubens 1999; order 1: BV
    sii       SII(T) = sum M(S) / (s - t + 1)                  Grabisch & Roubens 1999; order 1: SV
    k-sii     sum over s <= l of B_(s-t) SII(S)                Bord & von Luxburg 2023; B: Bernoulli numbers
    stii      M(T) for t < l; sum M(S) / C(s, l) for t = l     Sundararajan et al. 2020
    fbii      (-2)^t sum over s <= l of F(S)                   Tsai et al. 2023: least squares, uniform masks
    fsii      M(T) + (-1)^(l-t) t/(l+t) C(l, t)
              sum over s > l of C(s-1, l)/C(s+l-1, l+t) M(S)   Tsai et al. 2023: least squares, Shapley kernel
    or        O(T) = -(-2)^t sum (-1)^s F(S), O(0) = v(0):     v(S) = O(0) + sum over T meeting S of O(T)

Summed over 1 <= t <= l, sv, k-sii, stii and fsii give v(all) - v(none); the empty set's
entry is v(none) for these. For the others it is the formula's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import walsh
from spex_proxy.engine.walsh import Coefficients, Supports
from spex_proxy.facts.spectrum import WORD_BITS, Spectrum, unpack_supports

MOST_ROWS = 20_000_000
"""Subsets that are worked on before it is called too many."""

Table = list[list[Fraction]]
"""table[s][t] for 0 <= t <= s; the inner lists may be shorter where the rest is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """An index of every set of at most `order` players that a spectrum's terms contain; all others are 0."""

    name: str
    order: int
    n_players: int
    supports: Supports
    """Shape (sets, words). Sorted by size, then players; the empty set first."""
    numbers: Coefficients
    """Shape (sets,). In the value's unit."""

    def players(self) -> list[tuple[int, ...]]:
        """The sets as sorted tuples."""
        return unpack_supports(self.supports, self.n_players)

    def values(self) -> NDArray[np.float64]:
        """Shape (n,). The entries of single players."""
        out = np.zeros(self.n_players)
        single = np.bitwise_count(self.supports).sum(axis=1) == 1
        out[[players[0] for players in unpack_supports(self.supports[single], self.n_players)]] = self.numbers[single]
        return out


def moebius(largest: int, order: int) -> Table:
    return fill(largest, order, lambda _s, t: Fraction((-2) ** t))


def fourier(largest: int, order: int) -> Table:
    return fill(largest, order, lambda s, t: Fraction(int(s == t)))


def banzhaf(largest: int, order: int) -> Table:
    return fill(largest, order, lambda s, t: Fraction((-2) ** t if s == t else 0))


def sii(largest: int, order: int) -> Table:
    return fill(largest, order, lambda s, t: Fraction((-2) ** t, s - t + 1) if (s - t) % 2 == 0 else Fraction(0))


def k_sii(largest: int, order: int) -> Table:
    numbers = bernoulli(order)
    table = compose(sii(largest, order), fill(order, order, lambda s, t: numbers[s - t]))
    return with_baseline(table)


def sv(largest: int, _order: int) -> Table:
    return with_baseline(sii(largest, 1))


def stii(largest: int, order: int) -> Table:
    def share(s: int, t: int) -> Fraction:
        return Fraction(1, comb(s, t)) if t == order else Fraction(int(s == t))

    return compose(moebius(largest, largest), fill(largest, order, share))


def fbii(largest: int, order: int) -> Table:
    return fill(largest, order, lambda s, t: Fraction((-2) ** t if s <= order else 0))


def fsii(largest: int, order: int) -> Table:
    def share(s: int, t: int) -> Fraction:
        if s <= order:
            return Fraction(int(s == t))
        sign, l = (-1) ** (order - t), order  # noqa: E741 - the formula's own letter
        return Fraction(sign * t * comb(l, t) * comb(s - 1, l), (l + t) * comb(s + l - 1, l + t))

    return compose(moebius(largest, largest), fill(largest, order, share))


def either(largest: int, order: int) -> Table:
    return fill(largest, order, lambda s, t: Fraction(-((-2) ** t) * (-1) ** s if t else 1))


TABLES: dict[str, Callable[[int, int], Table]] = {
    "fourier": fourier, "moebius": moebius, "bv": lambda largest, _order: banzhaf(largest, 1), "bii": banzhaf, "sv": sv,
    "sii": sii, "k-sii": k_sii, "stii": stii, "fbii": fbii, "fsii": fsii, "or": either,
}  # fmt: skip
"""Name -> (largest size of a term, largest order wanted) -> c, from Fourier coefficients."""


def fill(largest: int, order: int, entry: Callable[[int, int], Fraction]) -> Table:
    """c[s][t] = entry(s, t) for t <= min(s, order)."""
    return [[entry(s, t) for t in range(min(s, order) + 1)] for s in range(largest + 1)]


def compose(first: Table, then: Table) -> Table:
    """What `then` makes of what `first` made: sum over T <= R <= S, by sizes."""

    def entry(s: int, t: int) -> Fraction:
        between = range(t, min(s, len(first[s]) - 1, len(then) - 1) + 1)
        return sum((comb(s - t, r - t) * first[s][r] * then[r][t] for r in between), Fraction(0))

    most = max(len(row) for row in then)
    return [[entry(s, t) for t in range(min(s + 1, most))] for s in range(len(first))]


def with_baseline(table: Table) -> Table:
    """The empty set's entry becomes v(none) = sum of all F."""
    return [[Fraction(1), *row[1:]] for row in table]


def bernoulli(most: int) -> list[Fraction]:
    """B_0 .. B_most with B_1 = -1/2, from sum_{j<=m} C(m+1, j) B_j = 0."""
    numbers = [Fraction(1)]
    for m in range(1, most + 1):
        earlier = sum((comb(m + 1, j) * numbers[j] for j in range(m)), Fraction(0))
        numbers.append(-earlier / (m + 1))
    return numbers


def index(spectrum: Spectrum, name: str, order: int) -> Index:
    """One of TABLES for all sets of at most `order` players. `sv` and `bv` have order 1, whatever is asked.

    Raises ValueError for an unknown name, an order outside 1..n, and a spectrum whose terms have too many subsets.
    """
    if name not in TABLES:
        raise ValueError(f"index {name!r} is unknown; there is {', '.join(TABLES)}")
    order = 1 if name in ("sv", "bv") else order
    if not 1 <= order <= max(1, spectrum.n_players):
        raise ValueError(f"order {order} is outside 1..{spectrum.n_players}")
    largest = int(spectrum.orders().max())
    sets, numbers = spread(spectrum, TABLES[name](max(largest, order), order), order)
    found = walsh.gather(spectrum.n_players, sets, numbers)
    return Index(name, order, spectrum.n_players, found.supports, found.coefficients)


def spread(spectrum: Spectrum, table: Table, order: int) -> tuple[Supports, Coefficients]:
    """Every subset T of every term S, at most `order` players, with c[s, t] F(S); equal sets not yet summed."""
    sizes = spectrum.orders()
    counted = {int(s): sum(comb(int(s), t) for t in range(min(int(s), order) + 1)) for s in np.unique(sizes)}
    rows = sum(counted[int(s)] for s in sizes)
    if rows > MOST_ROWS:
        raise ValueError(f"the terms have {rows} subsets of at most {order} players; at most {MOST_ROWS} can be done")
    supports, numbers = [], []
    for size in counted:
        members, coefficients = player_table(spectrum, sizes == size, size), spectrum.coefficients[sizes == size]
        bits = np.zeros((*members.shape, spectrum.supports.shape[1]), dtype=np.uint64)
        where = np.indices(members.shape)
        bits[(*where, members // WORD_BITS)] = np.uint64(1) << (members % WORD_BITS).astype(np.uint64)
        for t in range(min(size, order) + 1):
            factor = float(table[size][t])
            if factor == 0.0:
                continue
            for chosen in itertools.combinations(range(size), t):
                supports.append(np.bitwise_or.reduce(bits[:, list(chosen), :], axis=1))
                numbers.append(factor * coefficients)
    words = spectrum.supports.shape[1]
    if not supports:
        return np.zeros((0, words), dtype=np.uint64), np.zeros(0)
    return np.concatenate(supports), np.concatenate(numbers)


def player_table(spectrum: Spectrum, chosen: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """The players of the chosen terms, all of one size: (terms, size)."""
    terms = unpack_supports(spectrum.supports[chosen], spectrum.n_players)
    return np.asarray(terms, dtype=np.int64).reshape(len(terms), size)


def shapley_values(spectrum: Spectrum) -> NDArray[np.float64]:
    """SV_i = -2 sum over odd S with i of F(S) / |S|, (n,): only odd terms count (OddSHAP, arXiv 2602.01399)."""
    return index(spectrum, "sv", 1).values()


def strongest(influences: NDArray[np.float64], sizes: Sequence[int], share: float, most: int) -> list[int]:
    """The fewest players that carry `share` of all influence, (n,), as long as what they are made of, (n,) counts, is
    not more than `most` together; in ascending order."""
    total, carried, count = float(influences.sum()), 0.0, 0
    chosen: list[int] = []
    for at in np.argsort(-influences, kind="stable"):
        if total <= 0 or carried >= share * total or (chosen and count + sizes[at] > most):
            break
        chosen.append(int(at))
        carried, count = carried + float(influences[at]), count + sizes[at]
    return sorted(chosen)


def influence(spectrum: Spectrum) -> NDArray[np.float64]:
    """sum over S with i of F(S)^2, (n,): the variance that is gone once player i is fixed (O'Donnell 2014, 2.2)."""
    bits = np.unpackbits(spectrum.supports.astype("<u8").view(np.uint8), axis=1, bitorder="little")
    power: NDArray[np.float64] = spectrum.coefficients**2 @ bits[:, : spectrum.n_players].astype(np.float64)
    return power
