"""Words in the place of token ids, and how much of an answer came again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import Exchange, TextRange
from spex_proxy.wire.tokens import align
from spex_proxy.wire.wording import came_again, in_words
from tests.unit.examples import chat


def a_chat(*texts: str, answer: str) -> Exchange:
    return dataclasses.replace(chat(*texts), output_text=answer)


TEXT = st.text(st.sampled_from("ab ,.\n é"), max_size=40)


def offsets_of(text: str) -> tuple[tuple[int, int], ...]:
    """As `in_words` cuts an answer."""
    return in_words(a_chat("x", answer=text)).output_offsets


@pytest.mark.parametrize(
    ("again", "shares"),
    [
        ("The cat sat.", [1, 1, 1, 1]),
        ("the CAT sat .", [1, 1, 1, 1]),
        ("The dog sat.", [1, 0, 1, 1]),
        ("sat The cat", [1, 1, 0, 0]),
        ("Nothing of it!", [0, 0, 0, 0]),
        ("", [0, 0, 0, 0]),
        ("I said: The black cat has sat. Has it?", [1, 1, 1, 1]),
    ],
)
def test_known_answers(again: str, shares: list[float]) -> None:
    text = "The cat sat."
    assert offsets_of(text) == ((0, 3), (3, 7), (7, 11), (11, 12))
    assert came_again(text, offsets_of(text), again).tolist() == shares


def test_a_token_of_half_a_word_counts_with_the_whole_word() -> None:
    assert came_again("lighthouse keeper", ((0, 5), (5, 10), (10, 17)), "a keeper").tolist() == [0, 0, 1]


@given(TEXT.filter(str.strip), TEXT)
def test_shares_are_shares_and_the_same_again_is_all_of_it(text: str, other: str) -> None:
    offsets = offsets_of(text)
    whole = came_again(text, offsets, text)
    assert [share for share, (a, b) in zip(whole, offsets, strict=True) if text[a:b].strip()] == pytest.approx(
        [1.0] * sum(bool(text[a:b].strip()) for a, b in offsets)
    )
    some = came_again(text, offsets, other)
    assert some.dtype == np.float32
    assert ((some >= 0) & (some <= whole)).all()


@given(st.lists(TEXT, min_size=1, max_size=4).filter(lambda texts: any(map(str.strip, texts))), TEXT.filter(str.strip))
def test_words_cover_prompt_and_answer_and_texts_stand_where_they_are_said_to(texts: list[str], answer: str) -> None:
    exchange = a_chat(*texts, answer=answer)
    found = in_words(exchange)
    assert "".join(found.prompt_text[a:b] for a, b in found.offsets) == found.prompt_text
    assert "".join(answer[a:b] for a, b in found.output_offsets) == answer
    assert len(found.prompt_ids) == len(found.offsets)
    assert len(found.output_ids) == len(found.output_offsets)
    for message, place in zip(exchange.messages, found.places, strict=True):
        assert (place is None) == (not message.text)
        if place is not None:
            assert found.prompt_text[place.start : place.end] == message.text
    pieces = [found.prompt_text[a:b] for a, b in found.offsets]
    assert len(set(pieces)) == len(set(found.prompt_ids))


def test_segments_become_ranges_of_words() -> None:
    exchange = a_chat("Be brief.", "It rains. It is cold.", answer="Stay.")
    ranges = [TextRange(0, 0, 9), TextRange(1, 0, 10), TextRange(1, 10, 21)]
    players = align("sentence", ranges, exchange, tokens := in_words(exchange))
    covered = [tokens.offsets[s.token_start : s.token_end] for s in players.segments]
    words = [tokens.prompt_text[offsets[0][0] : offsets[-1][1]] for offsets in covered]
    assert words == ["Be brief.", "It rains. ", "It is cold."]


@pytest.mark.parametrize(("texts", "answer", "why"), [(("",), "Yes.", "token ids"), (("Why?",), " \n", "no words")])
def test_what_has_no_words_is_not_explained(texts: tuple[str, ...], answer: str, why: str) -> None:
    with pytest.raises(CannotExplain, match=why):
        in_words(a_chat(*texts, answer=answer))
