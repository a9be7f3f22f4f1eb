"""The 2^k table: what was measured is shown as measured, what is predicted as predicted."""

from __future__ import annotations

import numpy as np
import pytest

from spex_proxy.engine.rows import Rows, rows_of
from spex_proxy.engine.walsh import all_masks, exact_transform
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.study.coalitions import make_table

MASKS = all_masks(4)
VALUES = -9.0 + 2.0 * MASKS[:, 0] + 1.0 * MASKS[:, 1] + 4.0 * MASKS[:, 0] * MASKS[:, 1] - 0.5 * MASKS[:, 2]
"""Players 0 and 1 bring 2 and 1 alone, and 4 more together; player 3 does nothing."""
SPECTRUM = exact_transform(VALUES)


def rows(chosen: np.ndarray, noise: float = 0.0) -> Rows:
    return rows_of(Evidence(MASKS[chosen], VALUES[chosen] + noise, np.zeros(int(chosen.sum()), dtype=np.int64)))


def test_all_measured() -> None:
    table = make_table(SPECTRUM, rows(np.ones(16, dtype=bool)), (1, 0))
    assert [line.kept for line in table.lines] == [(False, False), (True, False), (False, True), (True, True)]
    assert [line.value for line in table.lines] == [-9.5, -7.5, -8.5, -2.5]
    assert table.measured == 4
    assert table.joint == pytest.approx(4.0)


def test_what_was_not_measured_is_predicted_and_says_so() -> None:
    table = make_table(SPECTRUM, rows(~((~MASKS[:, 0]) & (~MASKS[:, 1]) & MASKS[:, 2] & MASKS[:, 3]), 0.25), (0, 1))
    assert [line.is_measured for line in table.lines] == [False, True, True, True]
    assert table.lines[0].value == pytest.approx(-9.5), "the spectrum's word, without the measurements' offset"
    assert table.lines[3].value == -2.25
    assert table.measured == 3


def test_averages_are_over_random_masks_only_and_carry_their_count() -> None:
    table = make_table(SPECTRUM, rows(np.ones(16, dtype=bool)), (0, 1))
    # of the four masks without 0 and 1, the empty one was asked on purpose and is no sample
    assert [line.count for line in table.lines] == [3, 3, 3, 1]
    assert table.lines[3].error is None, "one mask has no spread"
    assert table.joint_error is None
    assert table.lines[1].average == pytest.approx(-7.0 - 0.5 / 3)
    assert table.lines[1].error is not None


def test_a_combination_that_no_mask_has_is_left_open() -> None:
    table = make_table(SPECTRUM, rows(MASKS[:, 0] & MASKS[:, 1]), (0, 1))
    assert [line.average is None for line in table.lines] == [True, True, True, False]
    assert table.joint_average is None


def test_a_triple_has_eight_lines() -> None:
    table = make_table(SPECTRUM, rows(np.ones(16, dtype=bool)), (2, 0, 1))
    assert len(table.lines) == 8
    assert table.joint == pytest.approx(0.0)


@pytest.mark.parametrize("players", [(), (0, 0), (4,), (-1, 2), (0, 1, 2, 3, 4)])
def test_a_choice_that_makes_no_sense_is_refused(players: tuple[int, ...]) -> None:
    spectrum = Spectrum.from_terms(4, [()], [1.0])
    with pytest.raises(ValueError, match="choose"):
        make_table(spectrum, rows(np.ones(16, dtype=bool)), players)
