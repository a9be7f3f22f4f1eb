"""The closed-form last step: ridge with a free intercept and a penalty per term, on a fixed support.

    minimise  sum_j (v_j - sum_T c_T chi_T(mask_j))^2 + sum_T penalty_T c_T^2,

the constant's penalty being 0.

Seen as a Gaussian process: c_T has prior variance q_T, noise has variance
`strength`, penalty_T = strength / q_T. With q_T ~ |F_T| of the proxy (columns
scaled by sqrt|F|), strong terms are hardly shrunk and doubtful ones a lot.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


def closed_form(characters: Floats, values: Floats, penalties: Floats) -> Floats:
    """Coefficients (k,) of the unique minimum; deterministic up to rounding.

    characters (m, k) with the constant first, values (m,), penalties (k,) with 0
    for the constant and > 0 elsewhere. Solved with columns scaled by
    1/sqrt(penalty), so the matrix that is factored is never worse conditioned
    than 1 + m / strength: on any machine equal to about 1e-12 of the values'
    spread. Raises ValueError for other input.
    """
    m, k = characters.shape
    if m == 0 or k == 0 or values.shape != (m,) or penalties.shape != (k,):
        raise ValueError(f"characters {characters.shape}, values {values.shape}, penalties {penalties.shape}")
    if penalties[0] != 0 or not (np.isfinite(penalties).all() and (penalties[1:] > 0).all()):
        raise ValueError("penalties must be 0 for the constant and positive for every other term")
    mean, value_mean = characters[:, 1:].mean(axis=0), float(values.mean())
    scale = 1 / np.sqrt(penalties[1:])
    z, y = (characters[:, 1:] - mean) * scale, values - value_mean
    if k - 1 <= m:
        scaled = solve_spd(z.T @ z + np.eye(k - 1), z.T @ y)
    else:
        scaled = z.T @ solve_spd(z @ z.T + np.eye(m), y)
    slopes = scaled * scale
    return np.concatenate([[value_mean - float(mean @ slopes)], slopes])


def leave_one_out(characters: Floats, values: Floats, penalties: Floats) -> Floats:
    """What `closed_form` of all other rows predicts for each row, (m,), without fitting m times.

    With H the matrix that maps values to fitted ones, v_-j = (v^_j - H_jj v_j) / (1 - H_jj) (Allen 1974, PRESS).
    A row that alone decides its prediction (H_jj = 1) gets the mean of the others.
    """
    fitted = characters @ closed_form(characters, values, penalties)
    z = (characters[:, 1:] - characters[:, 1:].mean(axis=0)) / np.sqrt(penalties[1:])
    m, k = z.shape
    if k <= m:
        inner = solve_spd(z.T @ z + np.eye(k), z.T)
        own = np.einsum("mk,km->m", z, inner)
    else:
        own = 1.0 - np.diag(solve_spd(z @ z.T + np.eye(m), np.eye(m)))
    left = 1.0 - 1.0 / m - own
    others = (values.sum() - values) / max(1, m - 1)
    alone = left <= 1e-12
    predicted: Floats = np.where(alone, others, (fitted - values * (1.0 - left)) / np.where(alone, 1.0, left))
    return predicted


def solve_spd(matrix: Floats, right: Floats) -> Floats:
    """Solve a symmetric positive definite system by Cholesky."""
    if not len(right):
        return right
    solution: Floats = scipy.linalg.cho_solve(scipy.linalg.cho_factor(matrix), right)
    return solution


def prior_variances(coefficients: Floats) -> Floats:
    """|F| of the proxy's non-constant terms (k-1,) -> prior variances that sum to 1.

    Floored at 1e-6 of the largest: a tree's coefficient may be tiny by accident.
    """
    strength: Floats = np.abs(coefficients)
    strength = np.maximum(strength, 1e-6 * strength.max(initial=0.0))
    total = float(strength.sum())
    return strength / total if total > 0 else strength


def path(characters: Floats, values: Floats, prior: Floats, strengths: Floats, test: Floats) -> Floats:
    """Predictions (strengths, t) on test characters (t, k), for many strengths at once.

    characters (m, k) with the constant first, values (m,), prior (k-1,). The same
    minimum as `closed_form` with penalties strength / prior; one
    eigendecomposition of the smaller Gram matrix serves all strengths.
    """
    mean, value_mean = characters[:, 1:].mean(axis=0), float(values.mean())
    scale = np.sqrt(prior)
    z, y = (characters[:, 1:] - mean) * scale, values - value_mean
    t = (test[:, 1:] - mean) * scale
    if z.shape[1] <= z.shape[0]:
        eigenvalues, vectors = np.linalg.eigh(z.T @ z)
        left, right = t @ vectors, vectors.T @ (z.T @ y)
    else:
        eigenvalues, vectors = np.linalg.eigh(z @ z.T)
        left, right = t @ (z.T @ vectors), vectors.T @ y
    shrunk = right / (np.maximum(eigenvalues, 0.0) + strengths[:, None])
    predictions: Floats = value_mean + shrunk @ left.T
    return predictions
