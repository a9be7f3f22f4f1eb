"""Which players to keep, or to remove: best and worst subsets, necessary and sufficient sets of a spectrum.

Three ways to one answer, which says how far it is proven: a local search finds a set; if the sets are few they are all
looked at; else a linear program (`linear`, HiGHS) searches on and bounds what any set can reach. All of it is
about the spectrum; how far the spectrum stands for the game is what its fidelity says.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from spex_proxy.engine import linear, walsh
from spex_proxy.engine.linear import Row
from spex_proxy.facts.evidence import Masks, Values
from spex_proxy.facts.spectrum import Spectrum

MOST_CELLS = 60_000_000
"""Sets x terms up to which all sets are looked at: about half a second."""
SET_CELLS = 200
"""What a set costs at least, in terms: it has to be made."""
TIME_LIMIT = 10.0
"""Seconds that a linear program may take."""
CLOSE = 1e-6
"""Share of sum |F|, the constant left out, under which two values are the same: what a solver can explain."""
ROUNDING = 1e-12
"""Share of the constant under which two values are the same: what its digits leave no room for."""
PROGRAM_EFFECTS = 100.0
"""Sum |F| in a program, the constant left out. The solver stops 1e-6 from the best: that must be less than CLOSE."""

Bits = NDArray[np.bool_]
"""Shape (n,). True for the players of a set."""


@dataclass(frozen=True, slots=True)
class Extreme:
    """The best set of a size, as far as is known."""

    kept: tuple[int, ...]
    removed: tuple[int, ...]
    value: float
    """What the spectrum says of keeping `kept`."""
    bound: float
    """No set of this size goes further than this."""
    is_proven: bool
    """True if no other set of this size goes further than this one does."""

    @property
    def gap(self) -> float:
        """How much further a better set could go at most, in the value's unit; 0 if proven."""
        return 0.0 if self.is_proven else abs(self.bound - self.value)


@dataclass(frozen=True, slots=True)
class Smallest:
    """The smallest set that does something, as far as is known."""

    players: tuple[int, ...] | None
    """None: none was found; and if `is_proven`, there is none."""
    value: float
    """What the spectrum says once that is done; NaN without a set."""
    threshold: float
    at_least: int
    """No set of fewer players does it."""
    is_proven: bool

    @property
    def gap(self) -> int:
        """How many players fewer a smaller set could have at most."""
        return 0 if self.is_proven or self.players is None else len(self.players) - self.at_least


def subset(
    spectrum: Spectrum, size: int, *, is_removed: bool = False, highest: bool = True, time_limit: float = TIME_LIMIT
) -> Extreme:
    """The `size` players to keep (or, `is_removed`, to remove) that make the value highest, or lowest.

    Raises ValueError for a size outside 0..n or a time limit that is none.
    """
    n = spectrum.n_players
    if not 0 <= size <= n:
        raise ValueError(f"a set of {size} of {n} players does not exist")
    checked(time_limit)
    kept_size = n - size if is_removed else size
    flips_removed = kept_size > n - kept_size
    search = Search(spectrum, flips_removed, 1.0 if highest else -1.0)
    bits, value, bound, proven = search.best(min(kept_size, n - kept_size), time_limit)
    kept = ~bits if flips_removed else bits
    value, bound = search.sign * value, search.sign * bound
    return Extreme(players_of(kept), players_of(~kept), value, value if proven else bound, proven)


def necessary(spectrum: Spectrum, threshold: float = 0.0, *, time_limit: float = TIME_LIMIT) -> Smallest:
    """The fewest players whose removal, all others kept, takes the value to the other side of the threshold.

    The side is that of the full mask, `at the threshold` being above it. Threshold 0: what flips the sign.
    """
    return smallest(spectrum, threshold, True, time_limit)


def sufficient(spectrum: Spectrum, threshold: float = 0.0, *, time_limit: float = TIME_LIMIT) -> Smallest:
    """The fewest players that alone, all others removed, hold the value on the full mask's side of the threshold."""
    return smallest(spectrum, threshold, False, time_limit)


def smallest(spectrum: Spectrum, threshold: float, is_removed: bool, time_limit: float) -> Smallest:
    """`necessary` and `sufficient`. Raises ValueError for a threshold or time limit that is no number."""
    if not math.isfinite(threshold):
        raise ValueError(f"the threshold is {threshold}; it must be a number")
    checked(time_limit)
    full = float(walsh.predict(spectrum, np.ones((1, spectrum.n_players), dtype=np.bool_))[0])
    is_above = full >= threshold
    sign = 1.0 if is_above != is_removed else -1.0
    search = Search(spectrum, is_removed, sign)
    # above means >= and below means <: strictly under needs a step, and that step must outlast rounding
    goal = sign * threshold + (search.close if sign < 0 else 0.0)
    bits, at_least, proven = search.fewest(goal, time_limit)
    if bits is None:
        return Smallest(None, math.nan, threshold, at_least, proven)
    value = sign * float(search.values(bits[None, :])[0])
    return Smallest(players_of(bits), value, threshold, at_least, proven)


def checked(time_limit: float) -> None:
    if not (math.isfinite(time_limit) and time_limit > 0):
        raise ValueError(f"the time limit is {time_limit}; it is a number of seconds above 0")


def players_of(bits: Bits) -> tuple[int, ...]:
    return tuple(int(player) for player in np.flatnonzero(bits))


class Search:
    """`sign` times the spectrum's value, as a function of bits (kept or removed), to be made high."""

    def __init__(self, spectrum: Spectrum, is_removed: bool, sign: float) -> None:
        over = linear.over_removed(spectrum) if is_removed else spectrum
        self.sign = sign
        self.n = spectrum.n_players
        self.signed = Spectrum(self.n, over.supports, sign * over.coefficients)
        self.effects = float(np.abs(over.coefficients[1:]).sum())
        """How far a value can be from the constant."""
        self.close = max(CLOSE * self.effects + ROUNDING * abs(over.constant), np.finfo(np.float64).tiny)
        bits = np.unpackbits(over.supports.astype("<u8").view(np.uint8), axis=1, bitorder="little")[:, : self.n]
        self.incidence = scipy.sparse.csr_array(bits.T.astype(np.float64))

    def values(self, bits: Masks) -> Values:
        """Shape (m,) for sets (m, n)."""
        return walsh.predict(self.signed, bits)

    def best(self, size: int, time_limit: float) -> tuple[Bits, float, float, bool]:
        """The best set of so many players: its bits, its value, a bound, and whether it is proven."""
        if self.cells(self.n, size) <= MOST_CELLS:
            bits, value = self.look_at_all(np.arange(self.n), size)
            return bits, value, value, True
        bits = self.climb(size)
        value = float(self.values(bits[None, :])[0])
        bound = self.signed.constant + self.effects
        program = self.program()
        if program is None:
            return bits, value, bound, bound - value <= self.close
        rows = [exactly(range(self.n), size), self.reaching(program, value)]
        solved = linear.solve(program, -program.slopes, rows, time_limit)
        if solved.bits is not None and int(solved.bits.sum()) == size:
            found = float(self.values(solved.bits[None, :])[0])
            if found > value:
                bits, value = solved.bits, found
        # infeasible: nothing is as good as what the climb found, but for rounding
        bound = min(bound, value if solved.bound == np.inf else self.value_of(program.constant - solved.bound))
        return bits, value, max(bound, value), bound - value <= self.close

    def fewest(self, goal: float, time_limit: float) -> tuple[Bits | None, int, bool]:
        """The smallest set whose value is at least `goal`: its bits, a bound of its size, whether it is proven."""
        looked, players = 0, np.flatnonzero(np.diff(self.incidence.indptr))
        while looked <= len(players) and self.cells(len(players), looked) <= MOST_CELLS // 4:
            bits, value = self.look_at_all(players, looked)
            if value >= goal:
                return bits, looked, True
            looked += 1
        if looked > len(players):
            return None, looked, True
        best = self.climb_to(goal, looked)
        size = self.n + 1 if best is None else int(best.sum())
        program = self.program() if size > looked else None
        if program is not None:
            rows = [(list(range(self.n)), [1.0] * self.n, float(looked), float(size - 1)), self.reaching(program, goal)]
            counted = np.zeros(len(program.slopes))
            counted[: self.n] = 1.0
            solved = linear.solve(program, counted, rows, time_limit)
            if solved.bits is not None and float(self.values(solved.bits[None, :])[0]) >= goal:
                best, size = solved.bits, int(solved.bits.sum())
            lowest = size if solved.bound == np.inf else math.ceil(max(solved.bound, 0.0) - 1e-6)
            looked = max(looked, min(size, lowest))
        return best, looked, looked >= size

    def program(self) -> linear.Program | None:
        """The program of the effects, in a unit of their own: the solver's tolerances are absolute, and a value may be
        in dollars or in billions, and far from 0."""
        effects = self.signed.coefficients / self.unit
        effects[0] = 0.0
        return linear.linearise(Spectrum(self.n, self.signed.supports, effects), is_pushed_up=True)

    @property
    def unit(self) -> float:
        """Of the program, in the value's unit."""
        return (self.effects or self.close) / PROGRAM_EFFECTS

    def value_of(self, found: float) -> float:
        """What the program says, in the value's unit."""
        return self.signed.constant + self.unit * found

    def reaching(self, program: linear.Program, goal: float) -> Row:
        """The row that says: the value is at least `goal`, but for rounding."""
        scale = 1.0 / (float(np.abs(program.slopes).max(initial=0.0)) or 1.0)
        used = np.flatnonzero(program.slopes)
        least = (goal - self.signed.constant) / self.unit - program.constant
        return used.tolist(), (scale * program.slopes[used]).tolist(), scale * least - 1e-7, np.inf

    def cells(self, n: int, size: int) -> int:
        """What looking at all sets of so many of n players costs."""
        return math.comb(n, size) * max(SET_CELLS, len(self.signed))

    def look_at_all(self, players: NDArray[np.int64], size: int) -> tuple[Bits, float]:
        """The best set of so many of these players; the first in canonical order of equal ones."""
        best, value = np.zeros(self.n, dtype=np.bool_), -np.inf
        every = itertools.combinations(players.tolist(), size)
        step = max(1, walsh.CHUNK_CELLS // max(SET_CELLS, len(self.signed)))
        while chosen := list(itertools.islice(every, step)):
            sets = np.zeros((len(chosen), self.n), dtype=np.bool_)
            sets[np.arange(len(chosen))[:, None], np.asarray(chosen, dtype=np.int64).reshape(len(chosen), size)] = True
            values = self.values(sets)
            first = int(np.argmax(values))
            if float(values[first]) > value:
                best, value = sets[first], float(values[first])
        return best, value

    def climb(self, size: int) -> Bits:
        """Greedy, then exchanges of two players as long as one helps."""
        bits, signs = np.zeros(self.n, dtype=np.bool_), self.signed.coefficients.copy()
        for _ in range(size):
            gains = np.where(bits, -np.inf, self.gains(signs))
            self.flip(bits, signs, int(np.argmax(gains)))
        return self.exchanged(bits, signs)

    def climb_to(self, goal: float, least: int) -> Bits | None:
        """Greedy until the goal is reached; then smaller sets by exchanges, as long as they reach it too."""
        bits, signs = np.zeros(self.n, dtype=np.bool_), self.signed.coefficients.copy()
        order: list[int] = []
        while float(signs.sum()) < goal:
            if len(order) == self.n:
                return None
            order.append(int(np.argmax(np.where(bits, -np.inf, self.gains(signs)))))
            self.flip(bits, signs, order[-1])
        best: Bits | None = bits.copy() if float(self.values(bits[None, :])[0]) >= goal else None
        while len(order) > least:
            self.flip(bits, signs, order.pop())
            better = self.exchanged(bits.copy(), signs.copy())
            if float(self.values(better[None, :])[0]) < goal:
                break
            best = better
        return best

    def exchanged(self, bits: Bits, signs: Values) -> Bits:
        """Exchange one player of the set for another as long as that raises the value; bounded."""
        for _ in range(2 * self.n):
            improved = False
            for leaving in np.flatnonzero(bits):
                loss = float(self.gains(signs)[leaving])
                self.flip(bits, signs, int(leaving))
                gains = np.where(bits, -np.inf, self.gains(signs))
                coming = int(np.argmax(gains))
                self.flip(bits, signs, coming)
                improved |= loss + float(gains[coming]) > self.close
            if not improved:
                break
        return bits

    def gains(self, signs: Values) -> Values:
        """What flipping each player changes, (n,): every term that holds it changes sign. `signs`: F(T) chi_T."""
        changes: Values = -2.0 * np.asarray(self.incidence @ signs)
        return changes

    def flip(self, bits: Bits, signs: Values, player: int) -> None:
        bits[player] = not bits[player]
        start, end = self.incidence.indptr[player : player + 2]
        signs[self.incidence.indices[start:end]] *= -1.0


def exactly(columns: range, count: int) -> Row:
    """The row that says: so many of these bits."""
    return list(columns), [1.0] * len(columns), float(count), float(count)
