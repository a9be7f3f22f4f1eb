"""Bit arithmetic against the definition, written out naively."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.engine import walsh
from spex_proxy.facts.spectrum import Spectrum, pack_supports


def naive_characters(masks, terms):
    return np.array([[(-1.0) ** sum(bool(mask[i]) for i in term) for term in terms] for mask in masks])


@given(st.sampled_from([1, 5, 63, 64, 65, 130]), st.integers(0, 2**32 - 1))
def test_characters_are_parities(n, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((7, n)) < 0.5
    terms = [tuple(rng.choice(n, size=min(n, size), replace=False)) for size in (0, 1, 2, 3, 9)]
    out = walsh.characters(masks, pack_supports(terms, n))
    assert out.dtype == np.float64
    assert np.array_equal(out, naive_characters(masks, terms))


def test_chunks_change_nothing(monkeypatch):
    masks = np.random.default_rng(0).random((50, 9)) < 0.5
    spectrum = Spectrum.from_terms(9, [(0,), (1, 8), (2, 3, 4)], [1.0, 2.0, 3.0])
    whole = walsh.predict(spectrum, masks)
    monkeypatch.setattr(walsh, "CHUNK_CELLS", 3)
    assert np.array_equal(walsh.predict(spectrum, masks), whole)


@given(st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_exact_transform_is_the_definition_and_inverts(n, seed):
    values = np.random.default_rng(seed).normal(size=1 << n) - 300
    spectrum = walsh.exact_transform(values)
    masks = walsh.all_masks(n)
    terms = [t for size in range(n + 1) for t in itertools.combinations(range(n), size)]
    assert spectrum.players() == terms
    assert np.allclose(spectrum.coefficients, naive_characters(masks, terms).T @ values / len(values), atol=1e-9)
    assert np.allclose(walsh.predict(spectrum, masks), values, atol=1e-9)


@pytest.mark.parametrize("shape", [(3,), (0,), (2, 2)])
def test_exact_transform_refuses_other_lengths(shape):
    with pytest.raises(ValueError, match=r"2\^n"):
        walsh.exact_transform(np.zeros(shape))


@given(st.sampled_from([3, 64, 70]), st.integers(0, 2**32 - 1))
def test_gather_agrees_with_from_terms(n, seed):
    rng = np.random.default_rng(seed)
    terms = [tuple(sorted(rng.choice(n, size=rng.integers(0, 4), replace=False).tolist())) for _ in range(30)]
    numbers = rng.normal(size=30)
    sums: dict[tuple[int, ...], float] = {}
    for term, number in zip(terms, numbers, strict=True):
        sums[term] = sums.get(term, 0.0) + number
    expected = Spectrum.from_terms(n, list(sums), list(sums.values()))
    found = walsh.gather(n, pack_supports(terms, n), numbers)
    assert np.array_equal(found.supports, expected.supports)
    assert np.allclose(found.coefficients, expected.coefficients)


def test_truncate_survives_six_equal_coefficients():
    six = Spectrum.from_terms(6, [(i,) for i in range(6)], [2.0] * 6)
    assert len(walsh.truncate(six, 6)) == 7
    assert walsh.truncate(six, 2).players() == [(), (0,), (1,)]


def test_truncate_keeps_the_constant_however_small_and_one_dominant_term():
    one = Spectrum.from_terms(3, [(), (0, 2), (1,)], [1e-12, 5.0, 1e-3], [0.1, 0.2, 0.3])
    cut = walsh.truncate(one, 1)
    assert cut.players() == [(), (0, 2)]
    assert cut.constant == 1e-12
    assert cut.standard_errors is not None
    assert cut.standard_errors.tolist() == [0.1, 0.2]
    assert walsh.truncate(one, 0).players() == [()]
    with pytest.raises(ValueError, match="-1"):
        walsh.truncate(one, -1)


def test_combine_is_linear():
    a = Spectrum.from_terms(3, [(), (0,), (0, 1)], [1.0, 2.0, 3.0])
    b = Spectrum.from_terms(3, [(0,), (2,)], [10.0, 20.0])
    both = walsh.combine([a, b], [0.5, 2.0])
    masks = walsh.all_masks(3)
    assert np.allclose(walsh.predict(both, masks), 0.5 * walsh.predict(a, masks) + 2 * walsh.predict(b, masks))
    with pytest.raises(ValueError, match="combined"):
        walsh.combine([a, Spectrum.from_terms(4, [()], [0.0])], [1.0, 1.0])
    with pytest.raises(ValueError, match="combined"):
        walsh.combine([], [])


def test_wrong_widths_are_refused():
    spectrum = Spectrum.from_terms(3, [(0,)], [1.0])
    with pytest.raises(ValueError, match="3 players"):
        walsh.predict(spectrum, np.zeros((1, 4), dtype=bool))
    with pytest.raises(ValueError, match="don't fit"):
        walsh.characters(np.zeros((1, 70), dtype=bool), spectrum.supports)
