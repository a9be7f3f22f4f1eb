"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from spex_proxy.engine.hierarchy import hierarchy
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.study import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.234, "+1.23"),
        (-0.4, "−0.40"),
        (-0.0001, "0.00"),
        (0.0, "0.00"),
        (-1234.5, "−1,234.50"),
        (math.nan, "unknown"),
    ],
)
def test_signed(value: float, text: str) -> None:
    assert words.signed(value) == text


@pytest.mark.parametrize(
    ("nats", "text"),
    [
        (0.0, "about as likely as before"),
        (math.log(2), "about 2.0 times likelier"),
        (-math.log(2), "about 2.0 times less likely"),
        (math.log(1770), "about 1,800 times likelier"),
        (50.0, "over a million times likelier"),
        (math.inf, ""),
    ],
)
def test_a_difference_in_nats_is_a_factor(nats: float, text: str) -> None:
    assert words.factor(nats) == text


@pytest.mark.parametrize(("largest", "digits"), [(12.0, 2), (1.0, 2), (0.5, 2), (0.02, 3), (0.0, 2), (math.nan, 2)])
def test_small_effects_get_more_digits(largest: float, digits: int) -> None:
    assert words.digits_for(largest) == digits


def test_groups_are_told_by_size_and_sign() -> None:
    assert words.together_reading(1.0, 2) == "more than one by one"
    assert words.together_reading(-1.0, 3) == "less than their smaller groups"
    assert "2.50 nats more than 1 and 4 bring" in words.together_sentence(2.5, (1, 4), "nats", 2)
    assert "All of 1, 2 and 4 together bring 0.50 less" in words.together_sentence(-0.5, (1, 2, 4), "", 2)


def test_hierarchy_in_plain_words() -> None:
    def read(*terms: tuple[int, ...]) -> str:
        return words.hierarchy_reading(hierarchy(Spectrum.from_terms(4, terms, [1.0] * len(terms))))

    assert read((0,), (1,)) == "segments act one by one: no interaction is among the strongest terms"
    assert read((0,), (0, 1)) == "the one strong interaction stands on its parts"
    assert read((2,), (0, 1)) == "the one strong interaction is more than its parts"
    assert read((0,), (0, 1), (2, 3), (0, 2)) == "67% of the 3 strongest interactions stand on their parts"
    rates = words.hierarchy_rates(hierarchy(Spectrum.from_terms(4, [(1,), (2,), (1, 3)], [1.0] * 3)))
    assert rates == "DSR 0.88, SCR 1.00, SHR 0.75"


def test_durations() -> None:
    assert [words.seconds(s) for s in (0.351, 47, 200)] == ["0.35 s", "47 s", "3 min 20 s"]
