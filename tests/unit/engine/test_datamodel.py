"""Training data's spectra: rank correlations, sets that act together, and the fewest that turn a margin."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spex_proxy.engine import datamodel, walsh
from spex_proxy.facts.spectrum import Spectrum


def of(n: int, value: object) -> Spectrum:
    masks = walsh.all_masks(n)
    return walsh.exact_transform(np.asarray([value(set(np.flatnonzero(mask))) for mask in masks], dtype=np.float64))  # type: ignore[operator]


def test_lds_by_hand() -> None:
    """Same order: 1; reversed: -1; 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = .6, whatever the scale."""
    found = datamodel.lds([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]], [[1, 10, 11, 99], [4, 3, 2, 1], [2, 1, 4, 3]])
    assert found.each.tolist() == pytest.approx([1.0, -1.0, 0.6])
    assert found.mean == pytest.approx(0.2)


def test_lds_without_an_order() -> None:
    found = datamodel.lds([[5.0, 5.0, 5.0], [1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0], [7.0, 7.0, 7.0]])
    assert found.each[0] == 0.0
    assert math.isnan(found.each[1])
    assert found.mean == 0.0
    assert math.isnan(datamodel.lds([[1.0, 2.0]], [[1.0, 1.0]]).mean)


@given(arrays.arrays(np.float64, (3, 7), elements=st.integers(-3, 3)), st.permutations(range(7)))
def test_lds_is_of_ranks(values: np.ndarray, order: list[int]) -> None:
    """Ties share a rank, as in SciPy's; monotone changes and the subsets' order do not matter."""
    truth = np.random.default_rng(0).normal(size=(3, 7))
    found = datamodel.lds(values, truth)
    for row in range(3):
        if np.ptp(values[row]) > 0:
            assert found.each[row] == pytest.approx(scipy.stats.spearmanr(values[row], truth[row]).statistic)
    again = datamodel.lds(np.exp(values)[:, order], truth[:, order] ** 3)
    np.testing.assert_allclose(found.each, again.each, atol=1e-12)


@pytest.mark.parametrize(
    ("predicted", "measured", "said"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], "must both be"),
        ([1.0, 2.0], [1.0, 2.0], "must both be"),
        ([[1.0]], [[1.0]], "must both be"),
        ([[1.0, float("nan")]], [[1.0, 2.0]], "not finite"),
    ],
)
def test_lds_of_nonsense(predicted: object, measured: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        datamodel.lds(predicted, measured)  # type: ignore[arg-type]


def test_joint_sets_by_hand() -> None:
    """0 and 1 help only together; 2 and 3 are copies; 4 and 5 harm, and more so together."""
    spectrum = of(
        6, lambda kept: 4.0 * ({0, 1} <= kept) + 3.0 * bool({2, 3} & kept) - 2.0 * ({4, 5} <= kept) - (5 in kept)
    )
    together = datamodel.joint_sets(spectrum, 5, is_synergistic=True)
    assert [joint.players for joint in together] == [(0, 1), (4, 5)]
    assert together[0].interaction == pytest.approx(4.0)
    assert together[0].apart == pytest.approx(4.0)  # each adds 2 on average over whether the other is there
    assert together[1].interaction == pytest.approx(-2.0)
    redundant = datamodel.joint_sets(spectrum, 5, is_synergistic=False)
    assert [(joint.players, joint.is_synergistic) for joint in redundant] == [((2, 3), False)]
    assert redundant[0].interaction == pytest.approx(-3.0)
    assert datamodel.joint_sets(spectrum, 1, is_synergistic=True) == together[:1]
    assert datamodel.joint_sets(spectrum, 5, is_synergistic=True, sizes=(3,)) == []
    with pytest.raises(ValueError, match="two players at least"):
        datamodel.joint_sets(spectrum, 1, is_synergistic=True, sizes=(1,))


def test_brittle_is_the_fewest_that_turn_it() -> None:
    spectrum = of(5, lambda kept: 2.0 * bool({0, 1} & kept) + 0.5 * (2 in kept) - 1.2)
    assert datamodel.brittle(spectrum).players == (0, 1)
    surely = datamodel.brittle(spectrum, error=0.8)  # without 0 and 1 it is at -.7, and without 2 at -1.2
    assert surely.players == (0, 1, 2)
    assert surely.value == pytest.approx(-1.2)
    never = datamodel.brittle(spectrum, error=2.0)
    assert never.players is None
    assert never.is_proven
    below = of(3, lambda kept: -1.0 + 1.5 * (0 not in kept))
    assert datamodel.brittle(below, error=0.4).players == (0,)
    for wrong in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="0 or more"):
            datamodel.brittle(spectrum, wrong)
