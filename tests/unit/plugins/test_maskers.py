"""Maskers: a masked prompt is the kept token ranges, joined, or a message less."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.exchange import Segment, Segmentation
from spex_proxy_standard.maskers import BlankMessageMasker, DeleteMasker, PlaceholderMasker

Case = tuple[tuple[int, ...], Segmentation, list[bool]]


def players(*ranges: tuple[int, int]) -> Segmentation:
    return Segmentation("any", tuple(Segment(0, a, b, a, b, "user", "user") for a, b in ranges))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    length = draw(st.integers(1, 20))
    edges = sorted(draw(st.lists(st.integers(1, length), unique=True, max_size=10)))
    ranges = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    if draw(st.booleans()):  # neighbours without a gap
        ranges = list(pairwise(edges))
    mask = draw(st.lists(st.booleans(), min_size=len(ranges), max_size=len(ranges)))
    return tuple(range(100, 100 + length)), players(*ranges), mask


def apply(case: Case, mask: list[bool]) -> tuple[int, ...]:
    return DeleteMasker().apply(case[0], case[1], np.array(mask, dtype=bool))


def test_known_answer() -> None:
    case: Case = (10, 11, 12, 13, 14, 15, 16), players((1, 3), (3, 4), (5, 6)), []
    assert apply(case, [True, True, True]) == (10, 11, 12, 13, 14, 15, 16)
    assert apply(case, [False, True, True]) == (10, 13, 14, 15, 16)
    assert apply(case, [True, False, False]) == (10, 11, 12, 14, 16)
    assert apply(case, [False, False, False]) == (10, 14, 16)


@given(cases())
def test_the_full_mask_is_the_prompt(case: Case) -> None:
    assert apply(case, [True] * len(case[1])) == case[0]


@given(cases())
def test_what_stays_is_what_is_no_masked_player(case: Case) -> None:
    ids, segmentation, mask = case
    gone = {
        ids[at]
        for segment, is_kept in zip(segmentation.segments, mask, strict=True)
        for at in range(segment.token_start, segment.token_end)
        if not is_kept
    }
    assert apply(case, mask) == tuple(token for token in ids if token not in gone)


@given(cases(), st.data())
def test_masking_more_keeps_a_part_of_what_was_kept(case: Case, data: st.DataObject) -> None:
    smaller = [is_kept and data.draw(st.booleans()) for is_kept in case[2]]
    remaining = iter(apply(case, case[2]))
    assert all(token in remaining for token in apply(case, smaller))  # a subsequence


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_mask_of_another_game_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        apply(((1, 2, 3, 4), players((1, 2), (2, 3)), []), [True] * length)


@given(cases(), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_a_placeholder_moves_nothing(case: Case, filler: list[int]) -> None:
    ids, segmentation, mask = case
    given_ids = Segmentation("any", segmentation.segments, filler=tuple(filler))
    got = PlaceholderMasker().apply(ids, given_ids, np.array(mask, dtype=bool))
    assert len(got) == len(ids)
    for segment, is_kept in zip(segmentation.segments, mask, strict=True):
        at = slice(segment.token_start, segment.token_end)
        length = segment.token_end - segment.token_start
        assert got[at] == (ids[at] if is_kept else (tuple(filler) * length)[:length])
    masked = {
        at
        for segment, is_kept in zip(segmentation.segments, mask, strict=True)
        if not is_kept
        for at in range(segment.token_start, segment.token_end)
    }
    assert all(got[at] == ids[at] for at in range(len(ids)) if at not in masked)


def blanked(mask: list[bool]) -> tuple[int, ...]:
    """Ids 10 to 17: two players in message 0, one in message 1, the rest nobody's."""
    ranges = ((0, 1, 3), (0, 3, 4), (1, 5, 6))
    segments = tuple(Segment(message, a, b, a, b, "user", "user") for message, a, b in ranges)
    return BlankMessageMasker().apply(tuple(range(10, 18)), Segmentation("any", segments), np.array(mask, dtype=bool))


def test_a_message_goes_as_a_whole() -> None:
    assert blanked([True, True, True]) == (10, 11, 12, 13, 14, 15, 16, 17)
    assert blanked([False, True, True]) == blanked([True, False, True]) == (10, 14, 15, 16, 17)
    assert blanked([False, False, True]) == (10, 14, 15, 16, 17)
    assert blanked([True, True, False]) == (10, 11, 12, 13, 14, 16, 17)
    assert blanked([True, False, False]) == (10, 14, 16, 17)


@given(cases())
def test_one_message_is_all_or_nothing(case: Case) -> None:
    ids, segmentation, mask = case
    got = BlankMessageMasker().apply(ids, segmentation, np.array(mask, dtype=bool))
    assert got == apply(case, [all(mask)] * len(mask))
