"""Evidence is put into one order, or refused with the row named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence


def evidence(masks, values, replicates=None):
    masks = np.asarray(masks, dtype=bool)
    numbers = np.zeros(len(masks), dtype=np.int64) if replicates is None else np.asarray(replicates)
    return Evidence(masks, np.asarray(values, dtype=float), numbers)


@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_order_carries_no_meaning(n, seed):
    rng = np.random.default_rng(seed)
    masks = np.concatenate([rng.random((20, n)) < 0.5, np.ones((3, n), dtype=bool)])
    numbers = np.arange(23)
    values = rng.normal(size=23)
    order = rng.permutation(23)
    one, other = (
        rows_of(evidence(masks, values, numbers)),
        rows_of(evidence(masks[order], values[order], numbers[order])),
    )
    for name in ("masks", "values", "uniform", "full_values"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_replicates_are_averaged_and_corners_marked():
    rows = rows_of(
        evidence(
            [[1, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]], [3, 1, 5, 7, 2, 7], [0, 0, 1, 0, 0, 0]
        )
    )
    assert len(rows) == 4
    assert rows.value_full == 4.0
    assert rows.value_empty == 1.0
    assert rows.full_values.tolist() == [3.0, 5.0]
    assert rows.values[rows.uniform].tolist() == [7.0]
    assert not rows.complete
    assert rows_of(evidence([[1], [0]], [1, 2])).complete


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_row_of_a_bad_value_is_named(bad):
    with pytest.raises(BadEvidence, match="row 1 "):
        rows_of(evidence([[1, 0], [0, 1], [1, 1]], [0.0, bad, bad]))


def test_two_values_for_one_measurement():
    with pytest.raises(BadEvidence, match="rows 0 and 2 "):
        rows_of(evidence([[1, 0], [0, 1], [1, 0]], [0.0, 1.0, 2.0]))
    assert len(rows_of(evidence([[1, 0], [0, 1], [1, 0]], [0.0, 1.0, 0.0]))) == 2


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Evidence(np.zeros((2, 0), dtype=bool), np.zeros(2), np.zeros(2, dtype=int)), "without players"),
        (Evidence(np.zeros(2, dtype=bool), np.zeros(2), np.zeros(2, dtype=int)), "bool array"),
        (Evidence(np.zeros((2, 3)), np.zeros(2), np.zeros(2, dtype=int)), "bool array"),  # type: ignore[arg-type]
        (Evidence(np.zeros((2, 3), dtype=bool), np.zeros(3), np.zeros(2, dtype=int)), "came with values"),
        (Evidence(np.zeros((2, 3), dtype=bool), np.zeros(2), np.zeros(1, dtype=int)), "replicates"),
        (Evidence(np.zeros((2, 3), dtype=bool), np.zeros(2), np.zeros(2)), "integers"),  # type: ignore[arg-type]
        (Evidence(np.zeros((1, 3), dtype=bool), np.zeros(1), np.array([-1])), "replicate number -1"),
    ],
)
def test_wrong_shapes_and_kinds(found, says):
    with pytest.raises(BadEvidence, match=says):
        rows_of(found)


@pytest.mark.parametrize("scale", [1e152, 1e-155, 1e307])
def test_values_whose_squares_are_no_numbers_are_refused_in_words(scale: float) -> None:
    masks = (np.arange(8)[:, None] >> np.arange(3) & 1).astype(np.bool_)
    with pytest.raises(BadEvidence, match="another unit"):
        rows_of(Evidence(masks, scale * masks.sum(axis=1), np.zeros(8, dtype=np.int64)))


def test_values_that_are_all_alike_are_no_matter_of_size() -> None:
    masks = (np.arange(8)[:, None] >> np.arange(3) & 1).astype(np.bool_)
    for value in (0.0, 1e-300):
        assert len(rows_of(Evidence(masks, np.full(8, value), np.zeros(8, dtype=np.int64)))) == 8
