"""Best, worst, necessary and sufficient sets against all subsets; by looking at all, and by the linear program."""

from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import extremes, linear, walsh
from spex_proxy.facts.spectrum import Spectrum


@st.composite
def spectra(draw: st.DrawFn, most_players: int = 8) -> Spectrum:
    n = draw(st.integers(1, most_players))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    sets = {tuple(np.flatnonzero(generator.random(n) < 0.4).tolist()) for _ in range(draw(st.integers(1, 15)))}
    return Spectrum.from_terms(n, sorted(sets), generator.normal(size=len(sets)).round(2))


@st.composite
def tangled(draw: st.DrawFn) -> Spectrum:
    """Many small groups: what a solver has to branch on."""
    n = draw(st.integers(8, 11))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    sizes = generator.integers(1, 4, size=draw(st.integers(20, 45)))
    sets = {tuple(sorted(generator.choice(n, size=size, replace=False).tolist())) for size in sizes}
    return Spectrum.from_terms(n, sorted(sets), generator.normal(size=len(sets)))


def every_value(spectrum: Spectrum) -> tuple[np.ndarray, np.ndarray]:
    masks = walsh.all_masks(spectrum.n_players)
    return masks, walsh.predict(spectrum, masks)


@pytest.fixture(params=["looked at", "solved"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "solved":
        monkeypatch.setattr(extremes, "MOST_CELLS", -1)
    return request.param


@settings(max_examples=25)
@given(spectrum=spectra(), is_removed=st.booleans(), highest=st.booleans(), data=st.data())
@pytest.mark.parametrize("products", [linear.LARGEST_PRODUCT, 2])
def test_the_best_set_of_a_size_is_the_best_of_all(spectrum, is_removed, highest, data, products, solved):
    size = data.draw(st.integers(0, spectrum.n_players))
    masks, values = every_value(spectrum)
    kept = spectrum.n_players - size if is_removed else size
    truth = values[masks.sum(axis=1) == kept]
    with solved(products):
        found = extremes.subset(spectrum, size, is_removed=is_removed, highest=highest)
    assert found.is_proven
    assert found.gap == 0.0
    assert found.value == pytest.approx(truth.max() if highest else truth.min(), abs=1e-5)
    assert len(found.kept) == kept
    assert sorted(found.kept + found.removed) == list(range(spectrum.n_players))
    assert found.value == pytest.approx(values[sum(1 << player for player in found.kept)], abs=1e-9)


@pytest.fixture(scope="module")
def solved():
    """Only the linear program may prove anything; terms above a size stay parities."""

    @contextlib.contextmanager
    def only(products: int):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(extremes, "MOST_CELLS", -1)
            patch.setattr(linear, "LARGEST_PRODUCT", products)
            yield

    return only


@settings(max_examples=40)
@given(spectrum=spectra(), threshold=st.floats(-3, 3), is_removed=st.booleans(), by_program=st.booleans())
def test_the_smallest_set_is_the_smallest_of_all(spectrum, threshold, is_removed, by_program, solved):
    masks, values = every_value(spectrum)
    close = 2e-5 * np.abs(spectrum.coefficients).sum()
    if np.abs(values - threshold).min() < close:
        return  # on neither side, but for rounding
    is_above = values >= threshold
    good = is_above != is_above[-1] if is_removed else is_above == is_above[-1]
    sizes = (~masks if is_removed else masks).sum(axis=1)[good]
    ask = extremes.necessary if is_removed else extremes.sufficient
    if by_program:
        with solved(3):
            found = ask(spectrum, threshold)
    else:
        found = ask(spectrum, threshold)
    assert found.is_proven
    if not len(sizes):
        assert found.players is None
        return
    assert found.players is not None
    assert len(found.players) == found.at_least == sizes.min()
    chosen = np.zeros(spectrum.n_players, dtype=np.bool_)
    chosen[list(found.players)] = True
    mask = ~chosen if is_removed else chosen
    assert found.value == pytest.approx(float(walsh.predict(spectrum, mask[None, :])[0]))
    assert good[sum(1 << int(player) for player in np.flatnonzero(mask))]


def moved(spectrum: Spectrum, scale: float, constant: float) -> tuple[Spectrum, float]:
    """The same effects in another unit around another constant; and how near two values are the same."""
    coefficients = spectrum.coefficients * scale
    coefficients[0] = constant
    effects = float(np.abs(coefficients[1:]).sum())
    close = extremes.CLOSE * effects + extremes.ROUNDING * abs(constant) + 1e-300
    return Spectrum(spectrum.n_players, spectrum.supports, coefficients), close


SCALES = st.integers(-9, 9).map(lambda power: 10.0**power)
CONSTANTS = st.sampled_from([0.0, 1.0, -30.0, 1e3, -1e6, 1e6])


@pytest.fixture(scope="module")
def by_program_alone(solved):
    """The local search finds nothing, so that the program has to."""

    @contextlib.contextmanager
    def only(products: int):
        with solved(products), pytest.MonkeyPatch.context() as patch:
            patch.setattr(extremes.Search, "climb", lambda search, size: np.arange(search.n) < size)
            patch.setattr(extremes.Search, "climb_to", lambda *_: None)
            yield

    return only


@settings(max_examples=40)
@given(tangled(), SCALES, CONSTANTS, st.booleans(), st.booleans(), st.sampled_from([2, 6]), st.data())
def test_the_best_set_is_the_same_in_every_unit(
    by_program_alone, spectrum, scale, constant, is_removed, highest, products, data
):
    spectrum, close = moved(spectrum, scale, constant)
    size = data.draw(st.integers(0, spectrum.n_players))
    masks, values = every_value(spectrum)
    truth = values[masks.sum(axis=1) == (spectrum.n_players - size if is_removed else size)]
    best = truth.max() if highest else truth.min()
    with by_program_alone(products):
        found = extremes.subset(spectrum, size, is_removed=is_removed, highest=highest)
    assert found.is_proven
    assert abs(found.value - best) <= 2 * close
    assert found.value == pytest.approx(values[sum(1 << player for player in found.kept)], rel=1e-12, abs=close / 10)


@settings(max_examples=60)
@given(spectra(), SCALES, CONSTANTS, st.booleans(), st.data())
def test_the_smallest_set_is_the_same_in_every_unit(by_program_alone, spectrum, scale, constant, is_removed, data):
    spectrum, close = moved(spectrum, scale, constant)
    masks, values = every_value(spectrum)
    levels = np.unique(values)
    at = data.draw(st.integers(0, len(levels)))
    around = np.concatenate([[levels[0] - 1e3 * close], levels, [levels[-1] + 1e3 * close]])
    threshold = float((around[at] + around[at + 1]) / 2)
    if np.abs(values - threshold).min() < 20 * close:
        return  # on neither side, but for rounding
    is_above = values >= threshold
    good = is_above != is_above[-1] if is_removed else is_above == is_above[-1]
    sizes = (~masks if is_removed else masks).sum(axis=1)[good]
    with by_program_alone(3):
        found = (extremes.necessary if is_removed else extremes.sufficient)(spectrum, threshold)
    assert found.is_proven
    assert (None if found.players is None else len(found.players)) == (sizes.min() if len(sizes) else None)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_effects_too_small_for_the_solver_are_proven_all_the_same(scale, by_program_alone):
    generator = np.random.default_rng(0)
    pairs = [pair for pair in itertools.combinations(range(16), 2) if generator.random() < 0.3]
    sets = [(), *itertools.combinations(range(16), 1), *pairs]
    spectrum = Spectrum.from_terms(16, sets, scale * generator.normal(size=len(sets)))
    masks, values = every_value(spectrum)
    with by_program_alone(linear.LARGEST_PRODUCT):
        found = extremes.subset(spectrum, 8)
    assert found.is_proven
    assert found.value == pytest.approx(values[masks.sum(axis=1) == 8].max(), rel=1e-5)


def test_nothing_crosses_0_of_a_spectrum_that_is_0(way):
    zero = Spectrum.from_terms(3, [(), (0,)], [0.0, 0.0])
    assert extremes.necessary(zero, 0.0).players is None, way
    assert extremes.sufficient(zero, 0.0).players == ()


def test_a_large_constant_makes_no_effect_small():
    spectrum = Spectrum.from_terms(4, [(), (0,), (1,), (2,), (3,)], [1e6 + 2, -0.5, -0.5, -0.5, -0.5])  # 1e6 + |S|
    found = extremes.necessary(spectrum, 1e6 + 3.5)
    assert (len(found.players or ()), found.value, found.is_proven) == (1, 1e6 + 3, True)


def test_both_ways_agree_with_brute_force_on_twelve_players(way):
    generator = np.random.default_rng(7)
    sets = [(), *itertools.combinations(range(12), 1), *list(itertools.combinations(range(12), 3))[::11]]
    spectrum = Spectrum.from_terms(12, sets, generator.normal(size=len(sets)))
    masks, values = every_value(spectrum)
    for size in (2, 6, 9):
        found = extremes.subset(spectrum, size)
        assert found.is_proven, way
        assert found.value == pytest.approx(values[masks.sum(axis=1) == size].max(), abs=1e-5)


def test_out_of_time_the_answer_says_what_is_not_proven(monkeypatch):
    monkeypatch.setattr(extremes, "MOST_CELLS", -1)
    generator = np.random.default_rng(3)
    pairs = list(itertools.combinations(range(40), 2))
    spectrum = Spectrum.from_terms(40, [(), *pairs], generator.normal(size=len(pairs) + 1))
    found = extremes.subset(spectrum, 20, time_limit=0.05)
    assert len(found.kept) == 20
    assert found.bound >= found.value
    assert found.is_proven == (found.gap == 0.0)
    assert not found.is_proven  # a dense game of random pairs is as hard as it gets


def test_a_spectrum_with_too_many_products_is_climbed_only(monkeypatch):
    monkeypatch.setattr(extremes, "MOST_CELLS", -1)
    monkeypatch.setattr(linear, "MOST_PRODUCTS", 2)
    spectrum = Spectrum.from_terms(5, [(), (0,), (1,), (2, 3, 4)], [1.0, 1.0, 1.0, 0.5])
    found = extremes.subset(spectrum, 4)
    assert (found.value, found.bound, found.gap, found.is_proven) == (0.5, 3.5, 3.0, False)
    smallest = extremes.necessary(spectrum, 2.9)
    assert smallest.at_least <= len(smallest.players or ())


def test_nothing_flips_a_constant():
    found = extremes.necessary(Spectrum.from_terms(30, [()], [2.0]), 0.0)
    assert (found.players, found.is_proven) == (None, True)
    assert extremes.sufficient(Spectrum.from_terms(30, [()], [2.0]), 0.0).players == ()


def test_bad_questions_are_refused():
    spectrum = Spectrum.from_terms(3, [(), (0,)], [0.0, 1.0])
    for size in (-1, 4):
        with pytest.raises(ValueError, match="of 3 players"):
            extremes.subset(spectrum, size)
    with pytest.raises(ValueError, match="threshold"):
        extremes.necessary(spectrum, float("nan"))
    for limit in (0.0, float("nan")):
        with pytest.raises(ValueError, match="time limit"):
            extremes.subset(spectrum, 1, time_limit=limit)
