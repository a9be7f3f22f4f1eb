"""The lasso: over single players the plainest member of the stack, and the hardest to beat on few masks.

    minimise  |v - c_0 - X c|^2 / (2 m) + lambda |c|_1,    c_0 free,

for a whole path of lambdas at once by accelerated proximal gradient (FISTA: Beck
& Teboulle 2009), on the Gram matrix where that is the smaller one, with restarts when it overshoots (O'Donoghue
& Candes 2015). Uniform masks make the columns nearly orthogonal, so it converges
in a few dozen steps of one small matrix product each.
"""

from __future__ import annotations

import numpy as np

from spex_proxy.engine.regression import Floats

LAMBDAS = 30
"""Length of the path."""
SMALLEST = 0.003
"""Last lambda of the path over the first, which leaves nothing but the constant."""
MOST_STEPS = 500
TOLERANCE = 1e-7
"""Stop when no coefficient moves by more, relative to the largest slope of a single column."""


def lambdas(columns: Floats, values: Floats) -> Floats:
    """The path, from the smallest lambda at which all coefficients are 0, downwards, (LAMBDAS,)."""
    slopes = np.abs((columns - columns.mean(axis=0)).T @ (values - values.mean())) / len(values)
    largest = float(slopes.max(initial=0.0))
    return np.geomspace(1.0, SMALLEST, LAMBDAS) * (largest if largest > 0 else 1.0)


def path(columns: Floats, values: Floats, strengths: Floats) -> tuple[Floats, Floats]:
    """Constants (L,) and coefficients (k, L) for columns (m, k), values (m,) and lambdas (L,)."""
    m, k = columns.shape
    mean, value_mean = columns.mean(axis=0), float(values.mean())
    centred = columns - mean
    right = (centred.T @ (values - value_mean) / m)[:, None]
    smaller = centred.T @ centred / m if k <= m else centred @ centred.T / m
    widest = float(np.linalg.eigvalsh(smaller)[-1]) if k else 0.0
    current = np.zeros((k, len(strengths)))
    if widest > 0:
        step, small = 1.0 / widest, TOLERANCE * float(np.abs(right).max(initial=0.0))
        ahead, momentum = current, np.ones(len(strengths))
        for _ in range(MOST_STEPS):
            seen = smaller @ ahead if k <= m else centred.T @ (centred @ ahead) / m
            moved = ahead - step * (seen - right)
            following = np.sign(moved) * np.maximum(np.abs(moved) - step * strengths, 0.0)
            change = following - current
            restart = np.einsum("kl,kl->l", ahead - following, change) > 0
            momentum = np.where(restart, 1.0, momentum)
            longer = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
            ahead = following + (momentum - 1.0) / longer * change
            current, momentum = following, longer
            if float(np.abs(change).max()) <= small:
                break
    return value_mean - mean @ current, current
