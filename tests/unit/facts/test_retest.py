"""What a re-test says about two answers."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from spex_proxy.facts.retest import Answers, Raised, Spoken, compare, overlap


def answers(control: str, removed: str) -> Answers:
    return Answers(Spoken(control, "stop"), Spoken(removed, "stop"))


@pytest.mark.parametrize(
    ("original", "control", "removed", "finding", "reproduced"),
    [
        ("Yes.", "Yes.", "No.", "changed", True),
        ("Yes.", " Yes.\n", "Yes.", "same", True),
        ("Yes.", "Perhaps.", "Perhaps.", "same", False),
        ("Yes.", "Yes.", "\n", "silent", True),
        ("Yes.", "Yes.", "yes.", "changed", True),
    ],
)
def test_the_new_answers_are_held_against_each_other(
    original: str, control: str, removed: str, finding: str, reproduced: bool
) -> None:
    outcome = compare(original, answers(control, removed))
    assert (outcome.finding, outcome.is_reproduced, outcome.is_gone) == (finding, reproduced, None)


def test_a_flag_counts_only_if_the_whole_prompt_still_raises_it() -> None:
    def gone(*flags: tuple[bool, bool]) -> bool | None:
        raised = tuple(Raised(f"f{number}", *flag) for number, flag in enumerate(flags))
        return compare("a", answers("a", "b"), raised).is_gone

    assert gone((True, False)) is True
    assert gone((True, False), (True, True)) is False
    assert gone((False, True)) is None, "the control does not raise it either: nothing to go by"
    assert gone((False, False), (True, False)) is True


@given(st.text(), st.text())
def test_overlap_is_a_symmetric_share(one: str, other: str) -> None:
    assert 0.0 <= overlap(one, other) <= 1.0
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, one) == 1.0


def test_overlap_of_known_texts() -> None:
    assert overlap("the cat sat", "The cat ran") == pytest.approx(2 / 3)
    assert overlap("a b c", "x y z") == 0.0
    assert overlap("x" * 1_000_000, "y " * 500_000) == 0.0
