"""The Walsh-kernel Gaussian process against its definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import draws, gaussian, posterior, walsh
from spex_proxy.engine.gaussian import Prior
from spex_proxy.facts.spectrum import Spectrum, pack_supports


def a_prior(n, rng, noise=0.1):
    return Prior(rng.uniform(0.1, 2.0, n), rng.uniform(0.05, 1.0, gaussian.DEGREE + 1), noise)


def subsets(n, most):
    return [s for d in range(most + 1) for s in itertools.combinations(range(n), d)]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_kernel_is_the_sum_over_all_small_sets(n, seed):
    rng = np.random.default_rng(seed)
    prior = a_prior(n, rng)
    z = gaussian.signs(rng.random((6, n)) < 0.5)
    expected = np.zeros((6, 6))
    for s in subsets(n, gaussian.DEGREE):
        chi = z[:, list(s)].prod(axis=1)
        expected += prior.scales[len(s)] * prior.relevance[list(s)].prod() * np.outer(chi, chi)
    assert np.allclose(gaussian.kernel(z, z, prior), expected, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_derivatives_are_finite_differences(n, seed):
    rng = np.random.default_rng(seed)
    prior, z = a_prior(n, rng), gaussian.signs(rng.random((12, n)) < 0.5)
    values = rng.normal(size=12)
    found = gaussian.evidence(z, values, prior)
    flat = np.concatenate([prior.relevance, prior.scales, [prior.noise]])
    slopes = np.concatenate([found[1], found[2], [found[3]]])

    def at(x):
        return gaussian.evidence(z, values, Prior(x[:n], x[n:-1], float(x[-1])))[0]

    step = 1e-5
    for i in range(len(flat)):
        up, down = flat.copy(), flat.copy()
        up[i] += step
        down[i] -= step
        assert slopes[i] == pytest.approx((at(up) - at(down)) / (2 * step), rel=1e-4, abs=1e-4)


def test_evidence_is_the_normal_density():
    rng = np.random.default_rng(0)
    prior, z, values = a_prior(5, rng), gaussian.signs(rng.random((9, 5)) < 0.5), rng.normal(size=9)
    covariance = gaussian.kernel(z, z, prior) + prior.noise * np.eye(9)
    expected = -0.5 * values @ np.linalg.solve(covariance, values) - 0.5 * np.linalg.slogdet(covariance)[1]
    assert gaussian.evidence(z, values, prior)[0] == pytest.approx(expected)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_spectrum_is_the_posterior_mean_and_predicts_alike(n, seed):
    rng = np.random.default_rng(seed)
    masks = walsh.all_masks(n)
    z, values = gaussian.signs(masks), rng.normal(size=1 << n)
    rows = rng.random(1 << n) < 0.6
    rows[0] = True
    seen = posterior.condition(z[rows], values[rows], a_prior(n, rng), rescale=False)
    spectrum = posterior.spectrum(seen, 10**6)
    assert np.allclose(walsh.predict(spectrum, masks), posterior.predict(seen, z), atol=1e-9)
    q = posterior.prior_variances(seen.prior, spectrum.supports)
    direct = q * (walsh.characters(masks[rows], spectrum.supports).T @ seen.a)
    assert np.allclose(spectrum.coefficients, direct, atol=1e-9)


def test_standard_errors_are_the_posterior_covariance():
    rng = np.random.default_rng(1)
    masks = draws.uniform_masks(6, 20, 0)
    z, prior = gaussian.signs(masks), a_prior(6, rng)
    seen = posterior.condition(z, rng.normal(size=20), prior, rescale=False)
    sets = subsets(6, 5)
    supports = pack_supports(sets, 6)
    q = np.array([prior.scales[len(s)] * prior.relevance[list(s)].prod() if len(s) <= 4 else 0.0 for s in sets])
    chi = walsh.characters(masks, supports)
    covariance = np.linalg.inv(chi * q @ chi.T + prior.noise * np.eye(20))
    expected = np.diag(q) - (q[:, None] * chi.T) @ covariance @ (chi * q)
    errors = posterior.standard_errors(seen, masks, supports)
    assert np.allclose(errors**2, np.maximum(np.diag(expected), 0), atol=1e-9)


def test_amplitude_and_noise_beat_their_neighbours():
    rng = np.random.default_rng(2)
    z = gaussian.signs(draws.uniform_masks(10, 60, 0))
    prior = a_prior(10, rng)
    values = rng.multivariate_normal(np.zeros(60), 3.0 * gaussian.kernel(z, z, prior) + 0.5 * np.eye(60))
    amplitude, noise = posterior.amplitude_and_noise(gaussian.kernel(z, z, prior), values)

    def density(a, s):
        return gaussian.evidence(z, values, Prior(prior.relevance, a * prior.scales, s))[0]

    best = density(amplitude, noise)
    assert all(density(a * amplitude, s * noise) <= best + 1e-4 for a in (0.9, 1, 1.1) for s in (0.8, 1, 1.25))
    assert best >= density(3.0, 0.5)


def test_learns_which_players_matter_and_recovers_a_sparse_game():
    masks = draws.uniform_masks(30, 200, 0)
    truth = Spectrum.from_terms(30, [(0,), (1,), (0, 1), (2,), (0, 2), (0, 1, 2)], [0.7, 0.5, 0.4, 0.3, 0.2, 0.2])
    values = walsh.predict(truth, masks)
    z = gaussian.signs(masks)
    prior = gaussian.learn(z, values / values.std())
    assert set(np.argsort(-prior.relevance)[:3].tolist()) == {0, 1, 2}
    seen = posterior.condition(z, values / values.std(), prior)
    fresh = draws.uniform_masks(30, 500, 9)
    residual = walsh.predict(truth, fresh) - values.std() * posterior.predict(seen, gaussian.signs(fresh))
    assert np.var(residual) < 0.005 * np.var(values)


def test_permuting_players_permutes_what_is_learnt():
    rng = np.random.default_rng(4)
    masks = draws.uniform_masks(9, 60, 0)
    values = rng.normal(size=60)
    order = rng.permutation(9)
    one = gaussian.learn(gaussian.signs(masks), values)
    other = gaussian.learn(gaussian.signs(masks[:, order]), values)
    assert np.allclose(other.relevance, one.relevance[order], rtol=5e-3)


def test_many_players_and_hardly_any_rows():
    masks = draws.uniform_masks(300, 12, 0)
    values = np.linspace(-1, 1, 12)
    z = gaussian.signs(masks)
    seen = posterior.condition(z, values, gaussian.learn(z, values))
    spectrum = posterior.spectrum(seen, 500)
    assert np.isfinite(spectrum.coefficients).all()
    assert len(spectrum) == 501
    assert len({tuple(row) for row in spectrum.supports.tolist()}) == 501
