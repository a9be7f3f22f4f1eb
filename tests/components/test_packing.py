"""Packs: every question is there whole, sees itself alone, and what questions share is there once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy_components.packing import ANSWER, CONTRAST, pack
from spex_proxy_components.questions import Asked

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)
QUESTIONS = st.lists(st.builds(Asked, IDS, IDS, st.one_of(st.just(()), IDS)), min_size=1, max_size=8)


@given(QUESTIONS, st.integers(1, 30))
def test_each_question_is_whole_and_alone(questions: list[Asked], most: int) -> None:
    packs = pack(questions, range(len(questions)), most)
    assert sorted(number for each in packs for number in each.questions) == list(range(len(questions)))
    for each in packs:
        for owner, number in enumerate(each.questions):
            asked = questions[number]
            for side, answer in ((ANSWER, asked.answer), (CONTRAST, asked.contrast)):
                mine = (each.owners == owner) & (each.sides == side)
                assert tuple(each.wanted[mine]) == answer
                for at, place in enumerate(each.places[mine]):
                    seen = np.flatnonzero(each.sees[place])
                    assert tuple(each.tokens[seen]) == asked.prompt + answer[:at]
                    assert list(each.depths[seen]) == list(range(len(seen)))
        # as many tokens as there are different beginnings, and no more
        ways = {
            (asked.prompt + answer[:-1])[: stop + 1]
            for asked in (questions[number] for number in each.questions)
            for answer in (asked.answer, asked.contrast)
            if answer
            for stop in range(len(asked.prompt) + len(answer) - 1)
        }
        assert len(each) == len(ways)
        assert len(each) <= most or len(each.questions) == 1


def test_some_of_the_questions_only() -> None:
    questions = [Asked((1, 2), (3,), ()), Asked((1,), (2,), ()), Asked((1, 2, 3), (4,), ())]
    (only,) = pack(questions, [2, 0])
    assert only.questions == (0, 2)
    assert only.tokens.tolist() == [1, 2, 3]
    assert only.places.tolist() == [1, 2]
