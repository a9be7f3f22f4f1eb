"""Evidence out of blocks: nothing is lost, nothing counts twice, and a block's digest sees all that a fit reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.evidence import Block, Evidence
from spex_proxy.facts.seals import seal

Row = tuple[int, int, float]
"""One reading: the mask as a number, the replicate, the value."""


def a_block(number: int, rows: list[Row], n: int = 11) -> Block:
    return Block(
        number=number,
        masks=np.array([[mask >> player & 1 for player in range(n)] for mask, _, _ in rows], dtype=bool),
        replicates=np.array([replicate for _, replicate, _ in rows], dtype=np.int64),
        values=np.array([value for _, _, value in rows]),
        logprobs=np.array([[value / 2, value / 2] for _, _, value in rows], dtype=np.float32),
        prompt_tokens=100,
        cached_tokens=0,
        seconds=0.5,
        probes_digest=seal(b"p"),
    )


def rows_of(evidence: Evidence) -> list[Row]:
    numbers = evidence.masks @ (1 << np.arange(evidence.n_players))
    return list(zip(numbers.tolist(), evidence.replicates.tolist(), evidence.values.tolist(), strict=True))


def test_a_mask_that_was_asked_twice_counts_once_and_the_earliest_answer_stands() -> None:
    first = a_block(0, [(5, 0, -1.0), (2047, 0, -2.0)])
    again = a_block(1, [(5, 0, -9.0), (3, 0, -3.0)])
    evidence = Evidence.from_blocks(11, [first, again])
    assert rows_of(evidence) == [(5, 0, -1.0), (2047, 0, -2.0), (3, 0, -3.0)]
    assert len(evidence) == 3
    assert evidence.n_players == 11


def test_replicates_are_left_alone() -> None:
    evidence = Evidence.from_blocks(11, [a_block(0, [(2047, 0, -1.0), (2047, 1, -1.1)]), a_block(1, [(2047, 2, -0.9)])])
    assert rows_of(evidence) == [(2047, 0, -1.0), (2047, 1, -1.1), (2047, 2, -0.9)]


def test_a_replicate_number_is_not_mistaken_for_a_mask() -> None:
    """Replicate 256 differs from 1 in a byte, and masks of 11 players fill a byte and a half."""
    rows = [(1, 0, -1.0), (0, 0, -6.0), (0, 1, -2.0), (0, 256, -3.0), (256, 0, -4.0), (1024, 0, -5.0)]
    assert rows_of(Evidence.from_blocks(11, [a_block(0, rows)])) == rows


def test_no_blocks_no_evidence() -> None:
    evidence = Evidence.from_blocks(4, [])
    assert (len(evidence), evidence.n_players) == (0, 4)
    assert evidence.values.dtype == np.float64
    assert evidence.replicates.dtype == np.int64


readings = st.tuples(st.integers(0, 31), st.integers(0, 3), st.integers(-50, 0).map(float))


@given(st.lists(st.lists(readings, min_size=1, max_size=6), max_size=5))
def test_joining_is_a_dictionary_that_keeps_what_came_first(batches: list[list[Row]]) -> None:
    expected: dict[tuple[int, int], float] = {}
    for mask, replicate, value in (row for batch in batches for row in batch):
        expected.setdefault((mask, replicate), value)
    evidence = Evidence.from_blocks(11, [a_block(number, batch) for number, batch in enumerate(batches)])
    assert rows_of(evidence) == [(mask, replicate, value) for (mask, replicate), value in expected.items()]


@given(st.lists(st.lists(readings, min_size=1, max_size=6), min_size=1, max_size=5))
def test_joining_again_adds_nothing(batches: list[list[Row]]) -> None:
    blocks = [a_block(number, batch) for number, batch in enumerate(batches)]
    assert rows_of(Evidence.from_blocks(11, blocks + blocks)) == rows_of(Evidence.from_blocks(11, blocks))


A_BLOCK = a_block(3, [(5, 0, -1.0), (6, 1, -2.0)])


@pytest.mark.parametrize(
    "change",
    [
        {"number": 4},
        {"masks": ~A_BLOCK.masks},
        {"replicates": A_BLOCK.replicates + 1},
        {"values": np.nextafter(A_BLOCK.values, 0)},
        {"logprobs": np.nextafter(A_BLOCK.logprobs, np.float32(0))},
        {"probes_digest": seal(b"q")},
        {"masks": np.pad(A_BLOCK.masks, ((0, 0), (0, 1)))},  # one player more, whom no mask keeps
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_sees_what_a_fit_reads(change: dict[str, object]) -> None:
    assert dataclasses.replace(A_BLOCK, **change).digest() != A_BLOCK.digest()  # type: ignore[arg-type]


def test_the_digest_does_not_see_what_no_fit_reads_nor_how_arrays_lie_in_memory() -> None:
    same = dataclasses.replace(
        A_BLOCK,
        prompt_tokens=7,
        cached_tokens=7,
        seconds=7.0,
        masks=np.asfortranarray(A_BLOCK.masks),
        values=A_BLOCK.values.astype(">f8"),
    )
    assert same.digest() == A_BLOCK.digest()
