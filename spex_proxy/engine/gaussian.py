"""A Gaussian process whose kernel is written in Walsh functions, so that its posterior mean is a spectrum.

    k(z, z') = sum_{d=0..D} s_d e_d(rho_1 z_1 z'_1, ..., rho_n z_n z'_n),    z = 1 - 2 mask,

e_d the elementary symmetric polynomial (additive GPs: Duvenaud et al. 2011, arXiv
1112.4394). Multiplied out, every set S of at most D players has an independent
coefficient with prior variance q_S = s_|S| prod_{i in S} rho_i. rho_i is the
relevance of player i: an interaction is believed as far as its players are,
which is the hierarchy that ProxySPEX found (arXiv 2505.17495).

e_d comes from power sums by Newton's identities, d e_d = sum_k (-1)^(k-1) e_{d-k} p_k;
since (z z')^2 = 1 the even power sums are constants and only the odd ones cost a
matrix product. This file is the kernel, its likelihood and what learns from it;
`posterior` is what is concluded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Masks

Floats = NDArray[np.float64]

DEGREE = 4
"""D. Order 5 changed R2 by less than .003 on every recorded game."""
VARIANCES = (1.0, 0.5, 0.2, 0.08, 0.03)
"""Where the search starts: the share of (standardised) variance in orders 0..D. Order 0 is the constant's
own variance and stays."""
NOISE = 0.2
"""Where the search for the noise's variance starts."""
RELEVANCE_SPREAD = 1.0
"""Prior standard deviation of log rho. It keeps n relevances honest when there are few masks."""
SCALE_SPREAD = 1.0
"""Prior standard deviation of log s_d and of log noise."""
BOUND = 5.0
"""Most that a logarithm may move from where it starts. Beyond it Newton's identities would lose digits: one player of
relevance r leaves an error of 1e-16 r^D where e_D should be 0."""
NOISE_BOUND = 10.0
"""Most that the logarithm of the noise may fall: to 1e-5 of the variance."""
JITTER = 1e-10
"""First extra noise, relative to the kernel's diagonal, tried when a matrix isn't positive definite in floats."""
STEPS = 10
"""Most iterations of L-BFGS. On recorded games 40 predicted no better (1 - R2 .1423, not .1420), in twice the time."""
DECIMALS = 3
"""Learnt logarithms are rounded to this: what a BLAS rounds otherwise on another machine ends here."""


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """What is believed of a standardised game before its values are seen."""

    relevance: Floats
    """Shape (n,). rho >= 0."""
    scales: Floats
    """Shape (D + 1,). s_0 .. s_D, in squared units of the value."""
    noise: float
    """Variance of what no term explains, same unit."""


def signs(masks: Masks) -> Floats:
    """z = 1 - 2 mask, (m, n) float64."""
    z: Floats = 1.0 - 2.0 * masks.astype(np.float64)
    return z


def polynomials(left: Floats, right: Floats, relevance: Floats, degree: int) -> tuple[list[Floats], list[Floats]]:
    """e_0..e_D of rho z z', each (m, m') (e_0: a scalar array), and the power sums p_1..p_D (even ones scalar)."""
    powers = [
        (left * relevance**k) @ right.T if k % 2 else np.asarray(float(np.sum(relevance**k)))
        for k in range(1, degree + 1)
    ]
    found: list[Floats] = [np.asarray(1.0)]
    for d in range(1, degree + 1):
        total = found[d - 1] * powers[0]
        for k in range(2, d + 1):
            if k % 2:
                total += found[d - k] * powers[k - 1]
            else:
                total -= found[d - k] * powers[k - 1]
        total *= 1.0 / d
        found.append(total)
    return found, powers


def kernel(left: Floats, right: Floats, prior: Prior) -> Floats:
    """k(z, z') without noise, (m, m')."""
    found, _ = polynomials(left, right, prior.relevance, len(prior.scales) - 1)
    total = np.full((left.shape[0], right.shape[0]), prior.scales[0])
    for scale, each in zip(prior.scales[1:], found[1:], strict=True):
        total += scale * each
    return total


def start(n_players: int) -> Prior:
    """All players alike, the variance of each order spread over its C(n, d) sets."""
    sets = np.ones(DEGREE + 1)
    for d in range(1, DEGREE + 1):
        sets[d] = sets[d - 1] * max(n_players - d + 1, 1) / d
    return Prior(np.ones(n_players), np.asarray(VARIANCES) / sets, NOISE)


def evidence(z: Floats, values: Floats, prior: Prior) -> tuple[float, Floats, Floats, float]:
    """log p(values | prior) + const, and its derivatives in rho (n,), s_0..s_D (D+1,) and noise.

    d/d theta = tr((a a' - K^-1) dK/d theta) / 2, a = K^-1 values (Rasmussen & Williams 2006, 5.9), and by
    d e_d / d p_k = (-1)^(k-1) e_{d-k} / k: dK/d rho_i = sum_k (-1)^(k-1) rho_i^(k-1) (z_i z'_i)^k sum_d s_d e_{d-k}.
    """
    m, degree = len(values), len(prior.scales) - 1
    found, _ = polynomials(z, z, prior.relevance, degree)
    covariance = np.full((m, m), prior.scales[0])
    for scale, each in zip(prior.scales[1:], found[1:], strict=True):
        covariance += scale * each
    factor = factorised(covariance, prior.noise)
    log_determinant = 2.0 * float(np.log(np.diag(factor)).sum())
    inverse = symmetric_inverse(factor)
    a = inverse @ values
    w = np.outer(a, a)
    w -= inverse
    sums = np.asarray([float(w.sum())] + [float(np.vdot(w, each)) for each in found[1:]])
    by_relevance = np.zeros_like(prior.relevance)
    for k in range(1, degree + 1):
        power = prior.relevance ** (k - 1)
        if k % 2:
            inner = np.full((m, m), prior.scales[k])
            for d in range(k + 1, degree + 1):
                inner += prior.scales[d] * found[d - k]
            inner *= w
            by_relevance += power * np.einsum("ji,ji->i", z, inner @ z)
        else:
            by_relevance -= power * float(prior.scales[k:] @ sums[: degree - k + 1])
    value = -0.5 * float(values @ a) - 0.5 * log_determinant
    return value, 0.5 * by_relevance, 0.5 * sums, 0.5 * float(np.trace(w))


def factorised(covariance: Floats, noise: float) -> Floats:
    """Lower Cholesky factor of covariance + noise I, (m, m); with a little more noise where rounding asks for it."""
    unit, extra = float(np.mean(np.diag(covariance))) + noise, 0.0
    while True:
        matrix = covariance.copy()
        matrix[np.diag_indices(len(matrix))] += noise + extra * unit
        try:
            return scipy.linalg.cholesky(matrix.T, lower=True, overwrite_a=True, check_finite=False)  # .T: no copy
        except scipy.linalg.LinAlgError:
            if extra > 1.0:
                raise
            extra = max(JITTER, 10.0 * extra)


def symmetric_inverse(factor: Floats) -> Floats:
    """(L L')^-1 in full from the lower Cholesky factor, which is overwritten."""
    inverse, info = scipy.linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
    assert info == 0
    full: Floats = inverse + inverse.T  # the upper triangle is 0
    full[np.diag_indices(len(full))] *= 0.5
    return full


def learn(z: Floats, values: Floats) -> Prior:
    """Relevances, scales and noise that maximise evidence times prior. Values (m,) standardised, z (m, n).

    L-BFGS on logarithms; the priors are normal ones around `start`.
    """
    origin = start(z.shape[1])
    n = z.shape[1]
    spread = np.concatenate([np.full(n, RELEVANCE_SPREAD), np.full(DEGREE + 1, SCALE_SPREAD)])

    def at(moved: Floats) -> Prior:
        grown = np.exp(moved)
        scales = np.concatenate([origin.scales[:1], origin.scales[1:] * grown[n : n + DEGREE]])
        return Prior(grown[:n], scales, float(origin.noise * grown[-1]))

    def cost(moved: Floats) -> tuple[float, Floats]:
        prior = at(moved)
        value, by_relevance, by_scale, by_noise = evidence(z, values, prior)
        slopes = np.concatenate(
            [by_relevance * prior.relevance, by_scale[1:] * prior.scales[1:], [by_noise * prior.noise]]
        )
        penalty = moved / spread**2
        return -value + 0.5 * float(moved @ penalty), penalty - slopes

    x0 = np.zeros(n + DEGREE + 1)
    found = scipy.optimize.minimize(
        cost,
        x0,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-BOUND, BOUND)] * (n + DEGREE) + [(-NOISE_BOUND, BOUND)],
        options={"maxiter": STEPS, "ftol": 1e-6, "gtol": 1e-3},
    )
    return at(np.round(found.x, DECIMALS))
