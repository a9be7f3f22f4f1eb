"""A sparse spectrum as a mixed-integer linear program: the value becomes linear in more variables.

Over bits b (what is kept, or what is removed) a spectrum is a polynomial

    v(b) = sum_R c_R prod_{i in R} b_i,     c the Moebius coefficients,

and y_R stands for the product of R: y_R <= b_i, y_R >= sum b_i - |R| + 1 (McCormick 1976; ProxySPEX,
arXiv 2505.17495, A.3), y_R <= y_(R-i), y_R >= y_(R-i) + b_i - 1. Where the value is pushed one way each y_R is
too, so one half of these is enough. A term of many players has 2^|T| subsets; from `LARGEST_PRODUCT` on it
stays a parity, with an integer h: sum b_i = 2 h + y, y in {0, 1}.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.sparse
from numpy.typing import NDArray

from spex_proxy.engine import interactions
from spex_proxy.engine.walsh import Coefficients, gather
from spex_proxy.facts.spectrum import Spectrum, unpack_supports

LARGEST_PRODUCT = 6
"""Players of a term up to which it is written as products."""
MOST_PRODUCTS = 30_000
"""Products beyond which a program is not even begun: nothing could be proven in time."""

Row = tuple[list[int], list[float], float, float]
"""Columns, their factors, and between what the sum must lie."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Columns: n bits, then one for each product, then two for each parity."""

    n_players: int
    constant: float
    slopes: NDArray[np.float64]
    """Shape (columns,). The value is constant + slopes @ x."""
    rows: tuple[Row, ...]
    whole: NDArray[np.bool_]
    """Shape (columns,). What must be an integer; the rest follows."""
    upper: NDArray[np.float64]
    """Shape (columns,). Largest values; the smallest are 0."""


@dataclass(frozen=True, slots=True)
class Solved:
    """What the solver says. It minimises."""

    bits: NDArray[np.bool_] | None
    """Shape (n,). The best that it found; None if it found none."""
    bound: float
    """No solution is below this; infinite if there is none at all, -infinite if nothing is known."""


def over_removed(spectrum: Spectrum) -> Spectrum:
    """The same function of removed bits instead of kept ones: F(T) -> (-1)^|T| F(T)."""
    signs = 1.0 - 2.0 * (spectrum.orders() % 2)
    return Spectrum(spectrum.n_players, spectrum.supports, signs * spectrum.coefficients)


def linearise(spectrum: Spectrum, is_pushed_up: bool) -> Program | None:
    """A spectrum over bits whose value is pushed up, or down; None if it has too many products."""
    n, few = spectrum.n_players, spectrum.orders() <= LARGEST_PRODUCT
    small = gather(n, spectrum.supports[few], spectrum.coefficients[few])
    sizes = small.orders()
    if float((2.0**sizes).sum()) > 64 * MOST_PRODUCTS:
        return None
    found = interactions.index(small, "moebius", max(1, int(sizes.max()))) if n else None
    sets = unpack_supports(found.supports, n) if found else []
    if len(sets) > MOST_PRODUCTS:
        return None
    numbers = found.numbers if found else np.zeros(0)
    slopes, rows = _products(n, sets, numbers, is_pushed_up)
    constant = float(numbers[0]) if len(numbers) else 0.0
    whole, upper = [True] * n + [False] * (len(slopes) - n), [1.0] * len(slopes)
    large = zip(unpack_supports(spectrum.supports[~few], n), spectrum.coefficients[~few], strict=True)
    for players, coefficient in large:
        at = len(slopes)
        constant += float(coefficient)  # chi = 1 - 2 y
        slopes += [-2.0 * float(coefficient), 0.0]
        whole += [True, True]
        upper += [1.0, float(len(players) // 2)]
        rows.append(([*players, at, at + 1], [1.0] * len(players) + [-1.0, -2.0], 0.0, 0.0))
    return Program(n, constant, np.asarray(slopes), tuple(rows), np.asarray(whole), np.asarray(upper))


def _products(
    n: int, sets: list[tuple[int, ...]], numbers: Coefficients, is_pushed_up: bool
) -> tuple[list[float], list[Row]]:
    """Slopes of bits and products, and what ties the products to the bits. `sets` come smallest first."""
    slopes, rows = [0.0] * n, list[Row]()
    column: dict[tuple[int, ...], int] = {(player,): player for player in range(n)}
    for players, number in zip(sets, numbers, strict=True):
        if len(players) < 2:
            if players:
                slopes[players[0]] = float(number)
            continue
        y, size = len(slopes), len(players)
        column[players] = y
        slopes.append(float(number))
        parents = [(player, column[tuple(p for p in players if p != player)]) for player in players]
        if (number > 0) == is_pushed_up:
            rows += [([y, player], [1.0, -1.0], -np.inf, 0.0) for player in players]
            rows += [([y, parent], [1.0, -1.0], -np.inf, 0.0) for _, parent in parents if size > 2]
        else:
            rows.append(([y, *players], [1.0] + [-1.0] * size, 1.0 - size, np.inf))
            rows += [([y, parent, p], [1.0, -1.0, -1.0], -1.0, np.inf) for p, parent in parents if size > 2]
    return slopes, rows


def solve(program: Program, objective: NDArray[np.float64], extra: list[Row], time_limit: float) -> Solved:
    """Minimise objective @ x under the program's rows and `extra` ones, for at most so many seconds (HiGHS)."""
    every = [*program.rows, *extra]
    lengths = np.asarray([len(row[0]) for row in every])
    indices = np.asarray([column for row in every for column in row[0]], dtype=np.int64)
    factors = np.asarray([factor for row in every for factor in row[1]])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    matrix = scipy.sparse.csr_array((factors, indices, starts), shape=(len(every), len(objective)))
    answer = scipy.optimize.milp(
        objective,
        integrality=program.whole.astype(np.int64),
        bounds=scipy.optimize.Bounds(np.zeros(len(objective)), program.upper),
        constraints=scipy.optimize.LinearConstraint(matrix, [row[2] for row in every], [row[3] for row in every]),
        options={"time_limit": time_limit, "mip_rel_gap": 0.0},
    )
    if answer.status == INFEASIBLE:
        return Solved(None, np.inf)
    bound = answer.mip_dual_bound
    bits = None if answer.x is None else np.asarray(answer.x[: program.n_players]) > 0.5
    return Solved(bits, -np.inf if bound is None or not np.isfinite(bound) else float(bound))


INFEASIBLE = 2
"""What scipy.optimize.milp returns as status."""
