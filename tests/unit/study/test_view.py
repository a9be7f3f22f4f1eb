"""Numbers and text joined: what a page or a terminal is given to show."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.exchange import Message, Segment, Segmentation
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.study.view import SegmentView, View, make_view
from tests.unit.examples import a_game, an_exchange, an_explanation


def a_view(**changes: object) -> View:
    return make_view(an_explanation(**changes), a_game(), an_exchange())


def test_each_segment_has_its_text_its_origin_and_its_effect() -> None:
    segments = a_view().segments
    assert [(s.number, s.text, s.provenance, s.message) for s in segments] == [
        (1, "The bell is in Oslo. ", "tool:search", 1),
        (2, "It rang twice.\n", "tool:search", 1),
        (3, "Where is the bell?", "user", 2),
    ]
    assert [s.effect for s in segments] == [4.0, -0.5, 2.0]  # -2 F({i})
    assert [s.strength for s in segments] == [1.0, -0.125, 0.5]


def test_ranked_by_size_whatever_the_sign_and_equals_in_prompt_order() -> None:
    assert [s.number for s in a_view().ranked] == [1, 3, 2]
    equal = Spectrum.from_terms(3, [(0,), (1,), (2,)], [0.5, -0.5, 0.5])
    assert [s.number for s in a_view(spectrum=equal).ranked] == [1, 2, 3]


def test_interactions_are_of_two_or_more_and_say_what_their_sign_means() -> None:
    (together,) = a_view().interactions
    assert together.numbers == (1, 3)
    assert together.labels == ("The bell is in Oslo.", "Where is the bell?")
    assert together.effect == 3.0  # (-2)^2 F({0, 2})
    assert together.reading == "more than one by one"
    assert dataclasses.replace(together, effect=-3.0).reading == "less than one by one"


@pytest.mark.parametrize(
    ("verdict", "badge"),
    [("reliable", "reliable"), ("unreliable", "NOT RELIABLE"), ("nothing_to_explain", "nothing to explain")],
)
def test_the_badge(verdict: str, badge: str) -> None:
    assert a_view(verdict=verdict).badge == badge


def test_no_effect_at_all_divides_by_nothing() -> None:
    view = a_view(spectrum=Spectrum.from_terms(3, [()], [-9.0]), interactions=())
    assert [(s.effect, s.strength) for s in view.segments] == [(0.0, 0.0)] * 3
    assert view.interactions == ()


def test_the_whole_prompt_is_there_with_what_was_never_masked() -> None:
    """The system prompt, and the words between and around the players, are part of what a person must see."""
    players = Segmentation("odd", (Segment(1, 4, 8, 8, 9, "tool", "tool:search"),))
    explanation = an_explanation(spectrum=Spectrum.from_terms(1, [(0,)], [-1.0]), interactions=())
    passages = make_view(explanation, a_game(players=players), an_exchange()).passages
    assert [(p.message, p.provenance, p.text, p.segment is not None) for p in passages] == [
        (0, "system", "Answer from the notes.", False),
        (1, "tool:search", "The ", False),
        (1, "tool:search", "bell", True),
        (1, "tool:search", " is in Oslo. It rang twice.\n", False),
        (2, "user", "Where is the bell?", False),
    ]


def test_empty_messages_leave_no_passage() -> None:
    exchange = an_exchange(messages=(Message("assistant", ""), *an_exchange().messages[1:]))
    passages = make_view(an_explanation(), a_game(), exchange).passages
    assert [passage.message for passage in passages] == [1, 1, 2]


def test_erased_content_leaves_numbers() -> None:
    view = make_view(an_explanation(), a_game(), None)
    assert view.exchange is None
    assert [s.text for s in view.segments] == [
        "[erased: 21 characters]", "[erased: 15 characters]", "[erased: 18 characters]",
    ]  # fmt: skip
    assert [s.effect for s in view.segments] == [4.0, -0.5, 2.0]
    assert [p.segment for p in view.passages] == list(view.segments)


def labelled(text: str, width: int) -> str:
    return SegmentView(1, text, "user", 0, 0.0, 0.0).label(width)


@pytest.mark.parametrize(
    ("text", "width", "label"),
    [
        ("The bell\n  rang. ", 14, "The bell rang."),
        ("0123456789", 10, "0123456789"),
        ("01234567890", 10, "012345678…"),
        ("The bell rang.", 10, "The bell…"),
        ("今天天气很好我们去公园散步吧", 10, "今天天气很好我们去…"),  # no space to cut at
        (" \n", 48, "(white space)"),
    ],
)
def test_labels(text: str, width: int, label: str) -> None:
    assert labelled(text, width) == label


@given(st.text(), st.integers(2, 40))
def test_a_label_is_one_short_line(text: str, width: int) -> None:
    label = labelled(text, width)
    assert len(label.splitlines()) == 1
    assert len(label) <= width
