"""A spectrum keeps its invariants whatever order it is built in; bitsets and tuples are the same thing."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.exchange import RequestHead, TraceRef
from spex_proxy.facts.spectrum import Spectrum, pack_supports, unpack_supports
from tests.unit.examples import NOON

N = 130
"""More than two words of 64 bits."""

terms = st.lists(st.frozensets(st.integers(0, N - 1), max_size=4), unique=True, max_size=12)


def test_known_answer() -> None:
    spectrum = Spectrum.from_terms(66, [(65, 0), (1,), (0,)], [0.5, -2.0, -1.0], [0.1, 0.2, 0.3])
    assert spectrum.players() == [(), (0,), (1,), (0, 65)]
    assert spectrum.coefficients.tolist() == [0.0, -1.0, -2.0, 0.5]
    assert spectrum.supports.tolist() == [[0, 0], [1, 0], [2, 0], [1, 2]]
    assert spectrum.standard_errors is not None
    assert spectrum.standard_errors.tolist() == [0.0, 0.3, 0.2, 0.1]
    assert spectrum.orders().tolist() == [0, 1, 1, 2]
    assert spectrum.constant == 0.0
    assert len(spectrum) == 4


@given(terms, st.randoms(use_true_random=False))
def test_invariants(chosen: list[frozenset[int]], order: random.Random) -> None:
    numbers = {term: float(len(term)) + 0.25 for term in chosen}
    shuffled = order.sample(chosen, len(chosen))
    spectrum = Spectrum.from_terms(N, shuffled, [numbers[term] for term in shuffled])
    players = spectrum.players()
    assert players[0] == ()
    assert len(set(players)) == len(players) == len(spectrum)
    assert players == sorted(players, key=lambda term: (len(term), term))
    assert set(players) == {tuple(sorted(term)) for term in chosen} | {()}
    held = dict(zip(map(frozenset, players), spectrum.coefficients.tolist(), strict=True))
    assert held == {frozenset(): 0.0, **numbers}
    again = Spectrum.from_terms(N, chosen, [numbers[term] for term in chosen])
    assert np.array_equal(again.supports, spectrum.supports)
    assert np.array_equal(again.coefficients, spectrum.coefficients)


@given(terms)
def test_packing_is_undone_by_unpacking(chosen: list[frozenset[int]]) -> None:
    tuples = [tuple(sorted(term)) for term in chosen]
    packed = pack_supports(tuples, N)
    assert packed.shape == (len(tuples), 3)
    assert unpack_supports(packed, N) == tuples


def test_a_game_without_players_has_its_constant() -> None:
    spectrum = Spectrum.from_terms(0, [()], [-3.0])
    assert spectrum.players() == [()]
    assert spectrum.constant == -3.0


@pytest.mark.parametrize(
    ("given_terms", "coefficients", "errors"),
    [
        ([(0, 1), (1, 0)], [1.0, 2.0], None),  # one term twice
        ([(), ()], [1.0, 2.0], None),
        ([(0,), (0, 0)], [1.0, 2.0], None),  # a player twice: as a bitset, the same as once
        ([(3,)], [1.0], None),  # players are 0, 1, 2
        ([(-1,)], [1.0], None),
        ([(0,), (1,)], [1.0], None),  # a coefficient is missing
        ([(0,)], [1.0, 2.0], None),
        ([(0,)], [1.0], [0.1, 0.2]),
    ],
)
def test_what_is_no_spectrum_is_refused(
    given_terms: list[tuple[int, ...]], coefficients: list[float], errors: list[float] | None
) -> None:
    with pytest.raises(ValueError, match=r"distinct|outside|one coefficient"):
        Spectrum.from_terms(3, given_terms, coefficients, errors)


def test_traceparent_is_w3c() -> None:
    assert TraceRef("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331").traceparent() == (
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    )
    assert TraceRef("0" * 31 + "1", "0" * 15 + "1", is_sampled=False).traceparent().endswith("-00")


def test_the_first_of_several_headers_counts() -> None:
    head = RequestHead("id", "POST", "/v1", ((b"x-a", b"one"), (b"x-b", b"\xe9"), (b"x-a", b"two")), NOON)
    assert head.header(b"x-a") == "one"
    assert head.header(b"x-b") == "é"
    assert head.header(b"x-c") is None
