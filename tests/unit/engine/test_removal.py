"""Sets whose removal together moves the value: known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from spex_proxy.engine import removal, walsh
from spex_proxy.facts.spectrum import Spectrum


def game(n: int, value: object) -> Spectrum:
    """The exact spectrum of a function of the kept players."""
    masks = walsh.all_masks(n)
    return walsh.exact_transform(np.asarray([value(set(np.flatnonzero(mask))) for mask in masks], dtype=np.float64))  # type: ignore[operator]


def test_copies_are_removed_together() -> None:
    """Any of 1, 3, 4 is enough; 0 matters a little by itself: alone it is the best removal, with three it is not."""
    spectrum = game(6, lambda kept: 10.0 * bool(kept & {1, 3, 4}) + (0 in kept))
    sets = removal.removal_sets(spectrum, [1, 3, 4])
    assert sets == {1: (0,), 3: (1, 3, 4), 4: (0, 1, 3, 4)}


def test_raising_is_the_mirror_of_lowering() -> None:
    spectrum = game(5, lambda kept: -2.0 * ({1, 2} <= kept) - (4 in kept))
    assert removal.removal_sets(spectrum, [2], lowers=False)[2] in {(1, 4), (2, 4)}
    with pytest.raises(ValueError, match="a set of 6 of 5 players"):
        removal.removal_sets(spectrum, [6])


def test_decisive_sets_hold_what_cooperates_and_what_is_copied() -> None:
    """Of two that only work together one is enough to remove, and a bystander's little effect wins the other place."""
    together = game(6, lambda kept: 10.0 * ({2, 5} <= kept) + (0 in kept))
    assert removal.removal_sets(together, [2])[2] in {(0, 2), (0, 5)}
    assert removal.decisive_sets(together, [2])[2] == (2, 5)
    copies = game(6, lambda kept: 10.0 * bool(kept & {1, 3, 4}) + (0 in kept))
    assert removal.decisive_sets(copies, [3])[3] == (1, 3, 4)


def test_decisive_sets_are_what_they_say_by_looking_at_all() -> None:
    values = np.random.default_rng(4).normal(size=64)
    masks = walsh.all_masks(6)
    spectrum = walsh.exact_transform(values)
    found = removal.decisive_sets(spectrum, [3])[3]
    gains = {
        tuple(np.flatnonzero(mask)): values[at] - values[63 - at] for at, mask in enumerate(masks) if mask.sum() == 3
    }
    assert found == max(gains, key=lambda each: gains[each])


def test_only_what_was_not_asked_is_claimed() -> None:
    masks = np.ones((2, 4), dtype=np.bool_)
    masks[1, 2] = False
    asked = removal.claims({2: (0, 3), 1: (2,)}, masks)
    assert asked.tolist() == [[False, True, True, False]]
    assert removal.claims({1: (2,)}, masks).shape == (0, 4)


def test_a_measured_removal_beats_a_promised_one() -> None:
    masks = np.asarray([[1, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=np.bool_)
    values = np.asarray([5.0, 4.0, 1.0, 0.0])
    assert removal.measured_best(masks, values, {1: (2,), 2: (1, 2), 3: (0, 1, 2)}) == {
        1: (1,),
        2: (0, 1),
        3: (0, 1, 2),
    }
    assert removal.measured_best(masks, values, {1: (2,)}, lowers=False) == {1: (0,)}


def test_asking_the_claims_finds_copies_that_a_first_fit_missed() -> None:
    """From a spectrum that knows nothing of player 3, two rounds of claims and a fit of what was measured."""

    def truth(kept: set[int]) -> float:
        return 8.0 * bool(kept & {1, 3})

    wrong, right = game(4, lambda kept: 8.0 * (1 in kept)), game(4, truth)
    masks = np.ones((1, 4), dtype=np.bool_)
    for spectrum in (wrong, right):
        masks = np.concatenate([masks, removal.claims(removal.removal_sets(spectrum, [1, 2]), masks)])
    values = walsh.predict(right, masks)
    assert removal.measured_best(masks, values, {2: (0, 1)})[2] == (1, 3)
    best = min(itertools.combinations(range(4), 2), key=lambda pair: truth(set(range(4)) - set(pair)))
    assert best == (1, 3)
