"""The value of a coalition: the answer's log-probability, summed so that many small terms are not lost."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spex_proxy_standard.values import SumLogProbability

READ = SumLogProbability().read


def test_known_answer() -> None:
    values = READ(np.array([[-0.5, -1.5], [-0.25, 0.0]], dtype=np.float32))
    assert values.tolist() == [-2.0, -0.25]
    assert values.dtype == np.float64
    assert SumLogProbability.unit == "nats"


def test_summed_in_float64() -> None:
    """In float32, 1e8 swallows each of the ones."""
    tokens = np.full((1, 1001), -1.0, dtype=np.float32)
    tokens[0, 0] = -1e8
    assert READ(tokens).tolist() == [-100001000.0]


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 60)), elements=st.floats(-50, 0, width=32))
)
def test_as_exact_as_can_be(tokens: np.ndarray) -> None:
    exact = [math.fsum(float(token) for token in row) for row in tokens]
    np.testing.assert_allclose(READ(tokens), exact, rtol=1e-14, atol=0)


@given(arrays.arrays(np.float32, (4, 7), elements=st.floats(-50, 0, width=32)), st.permutations(range(4)))
def test_each_row_for_itself(tokens: np.ndarray, order: list[int]) -> None:
    """A value does not depend on the batch that it was measured in."""
    together = READ(tokens)
    assert READ(tokens[order]).tolist() == together[order].tolist()
    assert [READ(tokens[[row]])[0] for row in range(4)] == together.tolist()
