"""Every index against its definition by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import indices, walsh
from spex_proxy.facts.spectrum import Spectrum


def subsets(players):
    return [s for size in range(len(players) + 1) for s in itertools.combinations(players, size)]


def number_of(players):
    return sum(1 << i for i in players)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_moebius_and_banzhaf_are_their_definitions(n, seed):
    values = np.random.default_rng(seed).normal(size=1 << n)
    spectrum = walsh.exact_transform(values)
    moebius = indices.moebius(spectrum, spectrum.supports)
    banzhaf = indices.banzhaf_interactions(spectrum)
    for row, term in enumerate(spectrum.players()):
        inner = [(-1.0) ** (len(term) - len(s)) for s in subsets(term)]
        harsanyi = sum(sign * values[number_of(s)] for sign, s in zip(inner, subsets(term), strict=True))
        others = subsets([i for i in range(n) if i not in term])
        means = [
            sum(sign * values[number_of(s + o)] for sign, s in zip(inner, subsets(term), strict=True)) for o in others
        ]
        assert moebius[row] == pytest.approx(harsanyi, abs=1e-9)
        assert banzhaf[row] == pytest.approx(np.mean(means), abs=1e-9)
    assert np.allclose(indices.banzhaf_values(spectrum), banzhaf[spectrum.orders() == 1])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10), st.integers(0, 2**32 - 1))
def test_fourier_and_moebius_round_trip(n, seed):
    spectrum = walsh.exact_transform(np.random.default_rng(seed).normal(size=1 << n))
    moebius = indices.moebius(spectrum, spectrum.supports)
    back = indices.fourier_of_moebius(spectrum.supports, moebius, spectrum.supports)
    assert np.allclose(back, spectrum.coefficients, atol=1e-9)


def test_moebius_needs_only_the_wanted_sets_and_works_past_one_word(monkeypatch):
    spectrum = Spectrum.from_terms(130, [(0,), (0, 129), (1, 70)], [1.0, 2.0, 4.0])
    monkeypatch.setattr(indices, "CHUNK_CELLS", 1)
    assert indices.moebius(spectrum, spectrum.supports).tolist() == [7.0, -6.0, 8.0, 16.0]
    assert indices.banzhaf_values(spectrum)[[0, 1, 129]].tolist() == [-2.0, 0.0, 0.0]


def test_ranking_is_by_energy_not_by_order():
    spectrum = Spectrum.from_terms(
        5, [(), (0,), (1, 2, 3, 4), (3,), (4,)], [99.0, 1.0, -0.5, 0.25, 0.25], [0.0, 0.1, 0.2, 0.3, 0.4]
    )
    ranked = indices.rank_interactions(spectrum, limit=3)
    assert [i.players for i in ranked] == [(0,), (1, 2, 3, 4), (3,)]
    assert [i.banzhaf for i in ranked] == [-2.0, -8.0, -0.5]
    assert ranked[2].moebius == pytest.approx(-2 * (0.25 - 0.5))
    assert ranked[1].standard_error == 0.2
    assert indices.rank_interactions(Spectrum.from_terms(2, [()], [1.0])) == ()
    with pytest.raises(ValueError, match="-1"):
        indices.rank_interactions(spectrum, -1)


def test_moebius_of_a_ranked_term_counts_supersets_outside_the_ranking():
    spectrum = Spectrum.from_terms(3, [(0,), (0, 1), (0, 1, 2)], [3.0, 2.0, 1.0])
    (top,) = indices.rank_interactions(spectrum, 1)
    assert top.moebius == pytest.approx(-2 * 6.0)
