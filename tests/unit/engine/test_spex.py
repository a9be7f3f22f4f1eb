"""SPEX: the code, the decoder and the peeling on answers that are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import designs, draws, walsh
from spex_proxy.engine.conclude import conclude
from spex_proxy.engine.decide import decide
from spex_proxy.engine.rows import rows_of
from spex_proxy.engine.spex import bch, decode, design
from spex_proxy.engine.spex.field import PRIMITIVE, field
from spex_proxy.engine.walsh import pack_masks
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum


def planted(n, terms, degree, seed):
    """A spectrum of distinct terms of 1 to `degree` players, with coefficients in +-[1, 2]."""
    stream = np.random.default_rng([seed, n, terms])
    sets = {()}
    while len(sets) <= terms:
        size = int(stream.integers(1, degree + 1))
        sets.add(tuple(sorted(int(i) for i in stream.choice(n, size, replace=False))))
    chosen = sorted(sets)
    return Spectrum.from_terms(n, chosen, stream.choice([-1.0, 1.0], len(chosen)) * stream.uniform(1, 2, len(chosen)))


def spectrum_by_spex(truth, budget, seed=0, noise=0.0):
    recipe = Recipe(method="spex", budget=budget, seed=seed, replicates=1)
    plan = designs.plan(truth.n_players, recipe)
    values = walsh.predict(truth, plan.masks) + noise * np.random.default_rng(seed).normal(size=len(plan))
    return conclude(recipe, rows_of(Evidence(plan.masks, values, plan.replicates)))


def as_dict(spectrum, least=1e-6):
    pairs = zip(spectrum.players(), spectrum.coefficients, strict=True)
    return {term: value for term, value in pairs if abs(value) > least}


# ------------------------------------------------------------------------------- the field and the code


@pytest.mark.parametrize("m", PRIMITIVE)
def test_alpha_generates_every_element_and_products_are_a_fields(m):
    gf = field(m)
    assert sorted(gf.power[: gf.order]) == list(range(1, gf.order + 1))
    a, b, c = np.random.default_rng(m).integers(0, gf.order + 1, (3, 500))
    assert np.array_equal(gf.multiply(a, gf.multiply(b, c)), gf.multiply(gf.multiply(a, b), c))
    assert np.array_equal(gf.multiply(a, b ^ c), gf.multiply(a, b) ^ gf.multiply(a, c))
    assert np.array_equal(gf.multiply(a, np.ones_like(a)), a)


def test_a_field_without_a_table_is_refused():
    with pytest.raises(ValueError, match="no table of GF"):
        field(40)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 130), t=st.integers(1, 5), data=st.data())
def test_up_to_t_wrong_bits_are_found_wherever_they_are(n, t, data):
    code = bch.code(n, t)
    assert code.p == bch.parity_count(n, t)
    errors = data.draw(st.lists(st.integers(0, code.p + n - 1), max_size=t, unique=True))
    truth = np.zeros((1, code.p + n), dtype=np.bool_)
    truth[0, errors] = True
    # the players' parities, and wrong parities on top
    word = truth[:, : code.p] ^ ((truth[:, code.p :] @ code.parity.T.astype(np.int64)) % 2).astype(np.bool_)
    found, good = bch.decode(code, bch.syndromes(code, word))
    assert good[0]
    assert np.array_equal(found, truth)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(10, 100), seed=st.integers(0, 999))
def test_what_is_decoded_explains_its_syndromes_or_is_refused(n, seed):
    """Random words: a decoder that is never wrong about what it claims."""
    code = bch.code(n, 3)
    words = np.random.default_rng(seed).random((50, code.p)) < 0.5
    errors, good = bch.decode(code, bch.syndromes(code, words))
    assert not errors[~good].any()
    assert (errors[good].sum(axis=1) <= 3).all()
    said = errors[:, : code.p] ^ ((errors[:, code.p :] @ code.parity.T.astype(np.int64)) % 2).astype(np.bool_)
    assert np.array_equal(said[good], words[good])


# ------------------------------------------------------------------------------- the design


def test_points_of_a_group_differ_and_a_small_design_begins_a_large_one():
    layout = design.choose(40, 2000)
    assert layout is not None
    assert layout.masks <= 2000
    coded = design.blueprint(layout, draws.raw_words(3, draws.SUBSPACES, design.words_needed(layout)))
    large = coded.masks(layout.bits)
    assert np.array_equal(large[:, : 1 << (layout.bits - 1)], coded.masks(layout.bits - 1))
    for group in large[:, :, 0]:
        assert len(np.unique(group, axis=0)) == 1 << layout.bits


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99))
def test_a_bin_holds_the_terms_that_fall_into_it(seed):
    """U_c,i(j) = sum over k with M_c^T k = j of (-1)^<d_i, k> F(k), by definition."""
    truth = planted(20, 12, 3, seed)
    layout = design.Layout(20, 4, 3, 2, bch.parity_count(20, 2) + 1)
    coded = design.blueprint(layout, draws.raw_words(seed, draws.SUBSPACES, design.words_needed(layout)))
    masks = coded.masks(4)
    values = walsh.predict(truth, masks.reshape(-1, 20)).reshape(masks.shape[:3])
    expected = np.zeros_like(values)
    places, signs = coded.bins(truth.supports, 4), coded.signatures(truth.supports)
    for term, group in itertools.product(range(len(truth)), range(3)):
        expected[group, places[group, term]] += truth.coefficients[term] * signs[term]
    assert decode.transform(values) == pytest.approx(expected, abs=1e-9)


# ------------------------------------------------------------------------------- the whole


@settings(max_examples=8, deadline=None)
@given(n=st.integers(20, 60), seed=st.integers(0, 999))
def test_a_sparse_spectrum_without_noise_is_recovered_exactly(n, seed):
    truth = planted(n, 12, 3, seed)
    found = spectrum_by_spex(truth, 1800, seed).spectrum
    assert as_dict(found) == pytest.approx(as_dict(truth), abs=1e-6)


@pytest.mark.slow
def test_fifty_terms_of_a_hundred_players_are_recovered_exactly():
    truth = planted(100, 50, 4, 1)
    fit = spectrum_by_spex(truth, 6000, 1)
    assert as_dict(fit.spectrum) == pytest.approx(as_dict(truth), abs=1e-6)
    assert fit.fidelity.r2 == pytest.approx(1.0)


def test_noise_is_survived_and_seen():
    truth = planted(30, 10, 3, 5)
    signal = float((truth.coefficients[1:] ** 2).sum())
    fit = spectrum_by_spex(truth, 1500, 5, noise=float(np.sqrt(signal / 10)))
    fresh = draws.uniform_masks(30, 2000, 77)
    values = walsh.predict(truth, fresh)
    assert 1 - ((values - walsh.predict(fit.spectrum, fresh)) ** 2).mean() / values.var() > 0.95
    assert fit.fidelity.r2 == pytest.approx(1 / 1.1, abs=0.05)


def test_pure_noise_gives_no_terms():
    recipe = Recipe(method="spex", budget=600, replicates=1)
    plan = designs.plan(24, recipe)
    values = np.random.default_rng(0).normal(size=len(plan))
    fit = conclude(recipe, rows_of(Evidence(plan.masks, values, plan.replicates)))
    assert len(fit.spectrum) <= 2
    assert fit.verdict != "reliable"


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 999))
def test_equal_evidence_in_any_order_gives_an_equal_spectrum(seed):
    truth = planted(24, 8, 3, seed)
    recipe = Recipe(method="spex", budget=700, replicates=1, seed=seed)
    plan = designs.plan(24, recipe)
    values = walsh.predict(truth, plan.masks)
    order = np.random.default_rng(seed).permutation(len(plan))
    one = conclude(recipe, rows_of(Evidence(plan.masks, values, plan.replicates))).spectrum
    other = conclude(recipe, rows_of(Evidence(plan.masks[order], values[order], plan.replicates[order]))).spectrum
    assert np.array_equal(one.supports, other.supports)
    assert one.coefficients == pytest.approx(other.coefficients, abs=1e-9)


def test_its_plan_is_complete_after_every_round():
    recipe = Recipe(method="spex", budget=1200, replicates=1)
    plan = designs.plan(30, recipe)
    coded = designs.blueprint(30, recipe)
    for number, bits in enumerate(coded.layout.levels):
        have = set(map(bytes, pack_masks(plan.masks[plan.rounds <= number])))
        assert {bytes(row) for row in pack_masks(coded.masks(bits).reshape(-1, 30))} <= have
        uniform = designs.fair(plan.masks[plan.rounds <= number], recipe)
        assert uniform.sum() >= draws.MIN_UNIFORM


def test_masks_of_another_design_are_refused_with_what_to_do():
    masks = draws.uniform_masks(30, 500, 0)
    masks[0] = True
    with pytest.raises(BadEvidence, match="its own design only"):
        conclude(Recipe(method="spex", budget=500), rows_of(Evidence(masks, masks.sum(1) * 1.0, np.zeros(500, int))))


def test_a_budget_that_buys_no_design_says_which_would():
    with pytest.raises(BadEvidence, match=r"needs a budget of at least \d+ masks, not 60"):
        decide(Recipe(method="spex", budget=60), Evidence.empty(100))


@pytest.mark.parametrize("design_name", ["paired", "keep=0.5"])
def test_its_design_is_its_own(design_name):
    with pytest.raises(ValueError, match="its own design only"):
        decide(Recipe(method="spex", design=design_name, budget=900), Evidence.empty(20))
