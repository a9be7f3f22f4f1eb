"""How sure a stack is of each coefficient.

A ridge with penalties P is the mean of a Bayesian linear model whose noise has variance s^2 and whose
coefficients have prior variances s^2 / P; their posterior covariance is s^2 A, A = (X'X + P)^-1, X centred
(Rasmussen & Williams 2006, 2.8). Over uniform masks characters are orthonormal, so the mean squared error on a
fresh mask is s^2 (1 + tr A): that is how s^2 is found, from the stack's own out-of-fold error. The stack is a
mixture of such models; its variance is the weighted variance within members plus the one between them.

That is the error if the prior is right. A term that it shrank away by mistake is not known so well: no
error is stated that is smaller than sqrt(error / m), what m masks tell of one coefficient when nothing else is
believed. Coverage, measured: docs/engine.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from spex_proxy.engine.regression import Floats


def variances(characters: Floats, penalties: Floats) -> Floats:
    """The diagonal of A, (k,): characters (m, k) with the constant first, penalties (k,) with 0 for it.

    The constant is free, which adds its own 1 / m.
    """
    m, k = characters.shape
    mean = characters[:, 1:].mean(axis=0)
    z, prior = characters[:, 1:] - mean, 1.0 / penalties[1:]
    if k - 1 <= m:
        factor = scipy.linalg.cholesky(z.T @ z + np.diag(penalties[1:]), lower=True)
        inverse = scipy.linalg.solve_triangular(factor, np.eye(k - 1), lower=True)
        slopes = np.einsum("ij,ij->j", inverse, inverse)
        shift = float(np.sum((inverse @ mean) ** 2))
    else:
        factor = scipy.linalg.cholesky((z * prior) @ z.T + np.eye(m), lower=True)
        seen = scipy.linalg.solve_triangular(factor, z, lower=True)
        slopes = prior - prior**2 * np.einsum("ij,ij->j", seen, seen)
        shift = float(mean**2 @ prior - np.sum((seen @ (prior * mean)) ** 2))
    return np.concatenate([[1.0 / m + max(shift, 0.0)], np.maximum(slopes, 0.0)])


def mixture_errors(coefficients: Floats, relative: Floats, weights: Sequence[float], error: float, rows: int) -> Floats:
    """Standard errors (k,) of the weighted sum of members' coefficients (members, k).

    relative: each member's diagonal of A, (members, k), 0 where it has no term. error: mean squared out-of-fold error.
    """
    share = np.asarray(weights)
    noise = error / (1.0 + relative.sum(axis=1))
    found: Floats = share @ (noise[:, None] * relative + (coefficients - share @ coefficients) ** 2)
    return np.sqrt(np.maximum(found, error / rows))
