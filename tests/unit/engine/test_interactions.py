"""Every index against its definition, by brute force over all subsets."""

from __future__ import annotations

import itertools
from math import comb, factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spex_proxy.engine import indices, interactions, walsh
from spex_proxy.facts.spectrum import Spectrum


def subsets(players, most=None):
    players = list(players)
    most = len(players) if most is None else most
    return [s for size in range(most + 1) for s in itertools.combinations(players, size)]


class Game:
    """All 2^n values, asked for by set."""

    def __init__(self, n, seed):
        self.n = n
        self.values = np.random.default_rng(seed).normal(size=1 << n) + 3.0
        self.spectrum = walsh.exact_transform(self.values)

    def __call__(self, s):
        return self.values[sum(1 << i for i in s)]

    def delta(self, t, s):
        """Discrete derivative of v by T at S."""
        return sum((-1.0) ** (len(t) - len(r)) * self(set(r) | set(s)) for r in subsets(t))

    def weighted(self, t, weight):
        others = [i for i in range(self.n) if i not in t]
        return sum(weight(len(s)) * self.delta(t, s) for s in subsets(others))


def sii(game, t):
    n, k = game.n, len(t)
    return game.weighted(t, lambda s: factorial(n - s - k) * factorial(s) / factorial(n - k + 1))


def bii(game, t):
    return game.weighted(t, lambda s: 0.5 ** (game.n - len(t)))


def stii(game, t, order):
    if len(t) < order:
        return game.delta(t, ())
    return game.weighted(t, lambda s: order / game.n / comb(game.n - 1, s))


def k_sii(game, order):
    """Bord & von Luxburg's recursion over orders."""
    bernoulli = [1.0, -0.5, 1 / 6, 0.0, -1 / 30, 0.0, 1 / 42]
    found = {}
    for level in range(1, order + 1):
        for t in subsets(range(game.n), level)[1:]:
            if len(t) == level:
                found[t] = sii(game, t)
            else:
                others = [i for i in range(game.n) if i not in t]
                more = itertools.combinations(others, level - len(t))
                found[t] += bernoulli[level - len(t)] * sum(sii(game, tuple(sorted(t + m))) for m in more)
    return found


def least_squares(game, order, weight):
    """Coefficients of the best polynomial of an order in kept players, masks weighted by their size."""
    sets, masks = subsets(range(game.n), order), subsets(range(game.n))
    design = np.array([[float(set(t) <= set(s)) for t in sets] for s in masks])
    root = np.sqrt([weight(len(s)) for s in masks])
    solution, *_ = np.linalg.lstsq(design * root[:, None], np.array([game(s) for s in masks]) * root, rcond=None)
    return dict(zip(sets, solution, strict=True))


def found(game, name, order):
    result = interactions.index(game.spectrum, name, order)
    return dict(zip(result.players(), result.numbers, strict=True))


GAMES = settings(max_examples=6, deadline=None)
orders = st.integers(1, 4)
seeds = st.integers(0, 2**32 - 1)


@GAMES
@given(st.integers(4, 6), orders, seeds)
def test_moebius_sii_bii_and_stii(n, order, seed):
    game = Game(n, seed)
    moebius, shapley, banzhaf, taylor = (found(game, name, order) for name in ("moebius", "sii", "bii", "stii"))
    for t in subsets(range(n), order):
        assert moebius[t] == pytest.approx(game.delta(t, ()), abs=1e-9)
        assert shapley[t] == pytest.approx(sii(game, t), abs=1e-9)
        assert banzhaf[t] == pytest.approx(bii(game, t), abs=1e-9)
        assert taylor[t] == pytest.approx(stii(game, t, order), abs=1e-9)


@GAMES
@given(st.integers(4, 6), orders, seeds)
def test_fourier_is_the_spectrum_itself(n, order, seed):
    game = Game(n, seed)
    ours = found(game, "fourier", order)
    parity = {t: [(-1.0) ** len(set(t) & set(s)) for s in subsets(range(n))] for t in subsets(range(n), order)}
    values = [game(s) for s in subsets(range(n))]
    assert ours == {t: pytest.approx(np.mean(np.multiply(signs, values)), abs=1e-9) for t, signs in parity.items()}


@GAMES
@given(st.integers(4, 6), orders, seeds)
def test_k_sii(n, order, seed):
    game = Game(n, seed)
    ours = found(game, "k-sii", order)
    for t, number in k_sii(game, order).items():
        assert ours[t] == pytest.approx(number, abs=1e-9)


@GAMES
@given(st.integers(4, 6), orders, seeds)
def test_faithful_banzhaf_is_least_squares(n, order, seed):
    game = Game(n, seed)
    ours = found(game, "fbii", order)
    for t, number in least_squares(game, order, lambda s: 1.0).items():
        assert ours[t] == pytest.approx(number, abs=1e-8)


@GAMES
@given(st.integers(4, 6), orders, seeds)
def test_faithful_shapley_is_least_squares_with_the_shapley_kernel(n, order, seed):
    game = Game(n, seed)
    ours = found(game, "fsii", order)
    kernel = least_squares(game, order, lambda s: 1e7 if s in (0, n) else (n - 1) / (comb(n, s) * s * (n - s)))
    for t, number in kernel.items():
        assert ours[t] == pytest.approx(number, abs=1e-4)


@GAMES
@given(st.integers(1, 6), seeds)
def test_values_are_their_definitions(n, seed):
    game = Game(n, seed)
    orderings = list(itertools.permutations(range(n)))
    shapley = np.zeros(n)
    for ordering in orderings:
        for place, player in enumerate(ordering):
            shapley[player] += (game(ordering[: place + 1]) - game(ordering[:place])) / len(orderings)
    assert np.allclose(interactions.shapley_values(game.spectrum), shapley)
    assert np.allclose(interactions.index(game.spectrum, "bv", 1).values(), indices.banzhaf_values(game.spectrum))
    influence = [np.mean([game.delta((i,), set(s) - {i}) ** 2 for s in subsets(range(n))]) / 4 for i in range(n)]
    assert np.allclose(interactions.influence(game.spectrum), influence)


@GAMES
@given(st.integers(1, 6), seeds)
def test_or_rebuilds_every_value(n, seed):
    game = Game(n, seed)
    ours = found(game, "or", n)
    for s in subsets(range(n)):
        total = ours[()] + sum(number for t, number in ours.items() if set(t) & set(s))
        assert total == pytest.approx(game(s), abs=1e-8)


@GAMES
@given(st.integers(1, 8), st.integers(1, 4), seeds)
def test_efficiency_where_it_holds(n, order, seed):
    game = Game(n, seed)
    for name in ("sv", "k-sii", "stii", "fsii"):
        ours = found(game, name, min(order, n))
        assert ours.pop(()) == pytest.approx(game(()), abs=1e-9)
        assert sum(ours.values()) == pytest.approx(game(range(n)) - game(()), abs=1e-8)


def test_order_of_all_players_is_moebius_for_the_faithful():
    game = Game(5, 0)
    moebius = interactions.index(game.spectrum, "moebius", 5).numbers
    for name in ("fbii", "fsii", "stii"):
        assert np.allclose(interactions.index(game.spectrum, name, 5).numbers, moebius)


def test_agrees_with_sums_over_supersets():
    spectrum = Spectrum.from_terms(130, [(), (0,), (0, 129), (1, 70, 3)], [5.0, 1.0, 2.0, 4.0])
    found = interactions.index(spectrum, "moebius", 3)
    assert np.allclose(found.numbers, indices.moebius(spectrum, found.supports))
    assert found.values()[129] == pytest.approx(-4.0)


def test_one_term_of_many_players_is_exact():
    spectrum = Spectrum.from_terms(60, [tuple(range(40))], [1.0])
    pairs = interactions.index(spectrum, "sii", 2)
    assert pairs.numbers[-1] == pytest.approx(4 / 39)
    assert interactions.index(spectrum, "stii", 2).numbers[1:].sum() == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="subsets"):
        interactions.index(spectrum, "moebius", 40)


@pytest.mark.timeout(60)  # pairs of terms in Python loops take far longer
def test_ten_thousand_terms_of_a_thousand_players():
    rng = np.random.default_rng(0)
    terms = {tuple(sorted(rng.choice(1000, size=rng.integers(1, 5), replace=False).tolist())) for _ in range(10_000)}
    spectrum = Spectrum.from_terms(1000, sorted(terms), rng.normal(size=len(terms)))
    found = interactions.index(spectrum, "fsii", 2)
    assert np.isfinite(found.numbers).all()


def test_what_cannot_be_asked():
    spectrum = Spectrum.from_terms(3, [(), (0, 1)], [1.0, 2.0])
    with pytest.raises(ValueError, match="'magic' is unknown"):
        interactions.index(spectrum, "magic", 1)
    for order in (0, 4):
        with pytest.raises(ValueError, match=r"outside 1\.\.3"):
            interactions.index(spectrum, "sii", order)


def test_values_have_order_1_whatever_is_asked():
    spectrum = Spectrum.from_terms(1, [(), (0,)], [1.0, 2.0])
    for name in ("sv", "bv"):
        assert interactions.index(spectrum, name, 2).order == 1
