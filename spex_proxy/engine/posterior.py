"""What a Walsh-kernel Gaussian process concludes: predictions, its spectrum, and how sure it is of a coefficient.

With a = (K + noise I)^-1 values, the posterior mean of coefficient F(S) is
q_S sum_j a_j chi_S(z_j), and its variance q_S - q_S^2 chi_S' (K + noise I)^-1 chi_S
(q_S its prior variance, see `gaussian`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray

from spex_proxy.engine import walsh
from spex_proxy.engine.gaussian import Floats, Prior, factorised, kernel
from spex_proxy.engine.walsh import Coefficients, Supports
from spex_proxy.facts.evidence import Masks
from spex_proxy.facts.spectrum import WORD_BITS, Spectrum

PARENTS = 1000
"""Sets of one size whose supersets are looked at: those believed most beforehand."""
RATIO = (1e-4, 1e2)
"""Where noise over amplitude is searched."""


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """A prior that has seen values."""

    prior: Prior
    """Amplitude and noise set on all rows."""
    z: Floats
    """Shape (m, n). The masks' signs."""
    a: Floats
    """Shape (m,). (K + noise I)^-1 values."""
    factor: Floats
    """Shape (m, m). Lower Cholesky factor of K + noise I."""


def condition(z: Floats, values: Floats, prior: Prior, rescale: bool = True) -> Posterior:
    """The posterior after rows z (m, n) with values (m,). `rescale`: fit amplitude and noise to these rows."""
    covariance = kernel(z, z, prior)
    if rescale:
        amplitude, noise = amplitude_and_noise(covariance, values)
        covariance *= amplitude
        prior = Prior(prior.relevance, prior.scales * amplitude, noise)
    factor = factorised(covariance, prior.noise)
    return Posterior(prior, z, scipy.linalg.cho_solve((factor, True), values), factor)


def amplitude_and_noise(covariance: Floats, values: Floats) -> tuple[float, float]:
    """What maximises p(values | amplitude covariance + noise I): one eigendecomposition, one line search."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    unit = max(float(eigenvalues[-1]), 1e-300)
    spectrum, power = np.maximum(eigenvalues, 0.0) / unit, (vectors.T @ values) ** 2

    def cost(log_ratio: float) -> float:
        shifted = spectrum + np.exp(log_ratio)
        return float(len(values) * np.log(np.mean(power / shifted)) + np.log(shifted).sum())

    m = len(values)
    found = scipy.optimize.minimize_scalar(
        cost, bounds=(np.log(RATIO[0] / m), np.log(RATIO[1])), method="bounded", options={"xatol": 1e-3}
    )
    ratio = float(np.exp(found.x))
    amplitude = float(np.mean(power / (spectrum + ratio)))
    return amplitude / unit, amplitude * ratio


def predict(posterior: Posterior, z: Floats) -> Floats:
    """Posterior mean of the value at z (t, n), all terms counted: (t,)."""
    return kernel(z, posterior.z, posterior.prior) @ posterior.a


def spectrum(posterior: Posterior, terms: int) -> Spectrum:
    """The constant and the `terms` strongest other coefficients that were found.

    Level by level: of each size the PARENTS sets believed most (by the product of
    their relevances) are extended by every less relevant player, all of them by
    one matrix product. Up to C(n, d) <= PARENTS nothing is left out.
    """
    prior, z = posterior.prior, posterior.z
    m, n = z.shape
    order = np.argsort(-prior.relevance, kind="stable")
    z, rho = z[:, order], prior.relevance[order]
    columns, belief = np.ones((m, 1)), np.ones(1)
    members = np.zeros((1, 0), dtype=np.int64)
    found = [(members, np.asarray([prior.scales[0] * float(posterior.a.sum())]))]
    for scale in prior.scales[1:]:
        last = members[:, -1] if members.shape[1] else np.full(1, -1)
        parent, child = np.nonzero(np.arange(n)[None, :] > last[:, None])
        sums = (columns * posterior.a[:, None]).T @ z
        grown = belief[parent] * rho[child]
        coefficients = scale * grown * sums[parent, child]
        sets = np.column_stack([members[parent], child])
        strongest = np.argsort(-np.abs(coefficients), kind="stable")[:terms]
        found.append((sets[strongest], coefficients[strongest]))
        kept = np.argsort(-grown, kind="stable")[:PARENTS]
        columns = columns[:, parent[kept]] * z[:, child[kept]]
        members, belief = sets[kept], grown[kept]
        if not len(members):
            break
    supports = np.concatenate([pack(order[sets], n) for sets, _ in found])
    whole = walsh.ordered(n, supports, np.concatenate([numbers for _, numbers in found]))
    return walsh.truncate(whole, terms)


def pack(sets: NDArray[np.int64], n_players: int) -> Supports:
    """Sets of one size, players (k, d) -> bitsets (k, words)."""
    out = np.zeros((len(sets), max(1, -(-n_players // WORD_BITS))), dtype=np.uint64)
    for column in sets.T:
        out[np.arange(len(sets)), column // WORD_BITS] |= np.uint64(1) << (column % WORD_BITS).astype(np.uint64)
    return out


def prior_variances(prior: Prior, supports: Supports) -> Coefficients:
    """q_S = s_|S| prod rho for each set, (k,); 0 for sets larger than the degree."""
    bits = np.unpackbits(supports.astype("<u8").view(np.uint8), axis=1, bitorder="little")
    bits = bits[:, : len(prior.relevance)].astype(np.bool_)
    sizes = bits.sum(axis=1)
    scales = np.concatenate([prior.scales, np.zeros(max(0, bits.shape[1] + 1 - len(prior.scales)))])
    variances: Coefficients = scales[sizes] * np.prod(np.where(bits, prior.relevance, 1.0), axis=1)
    return variances


def prior_variance(posterior: Posterior) -> float:
    """The prior variance of the value at any mask: the sum of q_S over all sets."""
    one = np.ones((1, posterior.z.shape[1]))
    return float(kernel(one, one, posterior.prior)[0, 0])


def standard_errors(posterior: Posterior, masks: Masks, supports: Supports) -> Coefficients:
    """Posterior standard deviation of each coefficient, (k,). `masks`: those that `z` came from."""
    q = prior_variances(posterior.prior, supports)
    characters = walsh.characters(masks, supports)
    explained = scipy.linalg.solve_triangular(posterior.factor, characters, lower=True, overwrite_b=True)
    left = q - q**2 * np.einsum("ij,ij->j", explained, explained)
    errors: Coefficients = np.sqrt(np.maximum(left, 0.0))
    return errors
