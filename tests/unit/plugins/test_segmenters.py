"""Segmenters: known answers for the texts that people really send, and laws for any text."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.exchange import Message
from spex_proxy.plug.kinds import Segmenter
from spex_proxy_standard.segmenters import (
    ENOUGH_PLAYERS,
    MOST_PLAYERS,
    AutoSegmenter,
    DocumentSegmenter,
    MessageSegmenter,
    SentenceSegmenter,
    WordSegmenter,
)
from tests.unit.examples import an_exchange, chat
from tests.unit.wire.test_documents import HOSTILE

LEVELS: list[Segmenter] = [MessageSegmenter(), DocumentSegmenter(), SentenceSegmenter(), WordSegmenter()]
ALL = [*LEVELS, AutoSegmenter()]


def cut(segmenter: Segmenter, text: str) -> list[str]:
    return [text[piece.start : piece.end] for piece in segmenter.split(chat(text))]


def sentences(text: str) -> list[str]:
    return cut(SentenceSegmenter(), text)


PIECES = [
    "a", "Be", "is", ".", "!", "?", "…", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2028", "\x1c", '"', "”", ")", "1.",
    "Dr.", "e.g.", "U.S.", "世", "界", "。", "！", "」", "カ", "👩‍🚀", "e\u0301", "नमस्ते", "।", "- ", "```", "\x00",
    "\n```\n", "\nDocument 1: ", "\nSource [2] ", "<doc>", "</doc>", "\n<x y='1'>", "</x>", "\n# H", "\n---\n",
    "| a |\n", "\n[1] ", "\n[2] ", "[{", "}, {", "}]", "\nQuestion:", "<documents>", "</documents>",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=40)


@pytest.mark.parametrize("segmenter", ALL, ids=lambda segmenter: segmenter.name)
@given(messages=st.lists(texts, min_size=1, max_size=4))
def test_each_message_is_covered_wholly_by_disjoint_ranges(segmenter: Segmenter, messages: list[str]) -> None:
    ranges = list(segmenter.split(chat(*messages)))
    assert [piece.message for piece in ranges] == sorted(piece.message for piece in ranges)
    for number, text in enumerate(messages):
        mine = [piece for piece in ranges if piece.message == number]
        if not text.strip():
            assert mine == []  # nothing in it to explain
            continue
        assert (mine[0].start, mine[-1].end) == (0, len(text))
        assert all(before.end == after.start for before, after in pairwise(mine))
        assert all(text[piece.start : piece.end].strip() for piece in mine)  # nobody plays white space


@given(texts)
def test_each_level_cuts_wherever_the_coarser_ones_do(text: str) -> None:
    ends = [{piece.end for piece in segmenter.split(chat(text))} for segmenter in LEVELS]
    for coarse, fine in pairwise(ends):
        assert coarse <= fine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rang. Twice! Why? Nobody knows…  Ever.", ["It rang. ", "Twice! ", "Why? ", "Nobody knows…  ", "Ever."]),
        # abbreviations, initials, numbers: a full stop that ends nothing
        ("Dr. Smith met Mrs. Jones, e.g. Ann. Then left.", ["Dr. Smith met Mrs. Jones, e.g. Ann. ", "Then left."]),
        ("J. R. R. Tolkien and J.R.R. Tolkien. One man.", ["J. R. R. Tolkien and J.R.R. Tolkien. ", "One man."]),
        ("He is in the U.S. Army. Not I.", ["He is in the U.S. Army. ", "Not I."]),
        ("See Fig. 3 and No. 5, vol. 2. Good.", ["See Fig. 3 and No. 5, vol. 2. ", "Good."]),
        ("Is it? No. The sky is.", ["Is it? ", "No. ", "The sky is."]),
        ("It cost 3.50 in 2019. Now 4.", ["It cost 3.50 in 2019. ", "Now 4."]),
        ("A final.                    Next.", ["A final.                    ", "Next."]),  # "al." after a long gap
        ("one. two. three", ["one. two. three"]),  # what begins small continues
        # quotes and brackets close behind the stop
        ('"Stop." She ran. ("Why?") He…', ['"Stop." ', "She ran. ", '("Why?") ', "He…"]),
        ("„Halt!“ Er lief. ‘So?’ “Yes.” Ok.", ["„Halt!“ ", "Er lief. ", "‘So?’ ", "“Yes.” ", "Ok."]),
        # stops of other scripts
        ("你好！？再见。「好。」他说", ["你好！？", "再见。", "「好。」", "他说"]),
        ("今日は。 明日。", ["今日は。 ", "明日。"]),
        ("यह एक है। वह दो है।", ["यह एक है। ", "वह दो है।"]),
        ("هل هذا؟ نعم.", ["هل هذا؟ ", "نعم."]),
        # lines
        ("Dear Ann\n\nthe bell is heavy\r\nBye", ["Dear Ann\n\n", "the bell is heavy\r\n", "Bye"]),
        ("written by Smith et al.\nNext", ["written by Smith et al.\n", "Next"]),
        (
            "Steps:\n1. Buy milk\n 2. Drink it. Now.\n- one\n* two",
            ["Steps:\n", "1. Buy milk\n ", "2. Drink it. ", "Now.\n", "- one\n", "* two"],
        ),
        (
            "```python\ndef f():\n    return 1.  # One. Two\n\nprint(f())\n```\n",
            ["```python\n", "def f():\n    ", "return 1.  # One. Two\n\n", "print(f())\n", "```\n"],
        ),
        # white space belongs to what stands before it, and at the very front to what comes
        ("\n\n Go. \n ", ["\n\n Go. \n "]),
        ("", []),
        (" \n\t\r\n ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The bell,  it rang.\n", ["The ", "bell,  ", "it ", "rang.\n"]),
        ("  Go\u00a0on", ["  Go\u00a0", "on"]),
        ("don't re-do e\u0301t\u00e9 👩‍🚀!", ["don't ", "re-do ", "e\u0301t\u00e9 ", "👩‍🚀!"]),
        ("我爱 Python3。好", ["我", "爱 ", "Python3。", "好"]),
        ("カメラ、ok", ["カ", "メ", "ラ、", "ok"]),
        ("한국어 좋아", ["한국어 ", "좋아"]),
        ("\n", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert cut(WordSegmenter(), text) == expected


def test_messages() -> None:
    ranges = MessageSegmenter().split(chat(" one. Two.\n", "", " \n", "x"))
    assert [(piece.message, piece.start, piece.end) for piece in ranges] == [(0, 0, 11), (3, 0, 1)]


# --- auto


def test_auto_takes_sentences_where_there_are_enough() -> None:
    text = "One is. " * ENOUGH_PLAYERS
    assert cut(AutoSegmenter(), text) == ["One is. "] * ENOUGH_PLAYERS


def test_auto_counts_sentences_over_all_messages() -> None:
    assert len(AutoSegmenter().split(chat(*["Yes it is."] * ENOUGH_PLAYERS))) == ENOUGH_PLAYERS


def test_auto_takes_words_where_sentences_are_few() -> None:
    assert cut(AutoSegmenter(), "The bell rang. We ran.") == ["The ", "bell ", "rang. ", "We ", "ran."]


def test_auto_stays_with_sentences_where_the_words_are_too_many() -> None:
    fits = "word " * (MOST_PLAYERS - 1) + "end. "
    assert len(cut(AutoSegmenter(), fits)) == MOST_PLAYERS
    assert cut(AutoSegmenter(), fits + "More.") == [fits, "More."]


def test_auto_is_never_coarser_than_sentences() -> None:
    assert cut(AutoSegmenter(), "अ।क।") == sentences("अ।क।")
    assert cut(AutoSegmenter(), "ab！cd！ef") == ["ab！", "cd！", "ef"]  # three sentences, but one word


def test_auto_reads_chinese() -> None:
    assert len(cut(AutoSegmenter(), "今天天气很好。我们去公园。")) == 11


def test_auto_puts_sentences_together_where_they_are_too_many() -> None:
    """As many players as the budget can tell apart, cut at ends of paragraphs and never across documents."""
    paragraph = "One is here. Two is there. Three is gone.\n\n"
    documents = [f"Document {number}: " + paragraph * 20 for number in range(1, 5)]
    pieces = cut(AutoSegmenter(), "".join(documents))
    assert MOST_PLAYERS / 2 < len(pieces) <= MOST_PLAYERS
    assert all(piece.endswith("\n\n") for piece in pieces)
    assert [piece[:10] for piece in pieces if "Document" in piece] == [f"Document {n}" for n in range(1, 5)]


def test_auto_cuts_a_long_paragraph_between_sentences() -> None:
    pieces = cut(AutoSegmenter(), "This is said. " * 500)
    assert MOST_PLAYERS / 2 < len(pieces) <= MOST_PLAYERS
    assert all(piece.endswith("said. ") for piece in pieces)


def test_auto_goes_back_to_documents_neighbouring_documents_and_messages() -> None:
    text = "".join(f"<doc>\n{'One. ' * 3}\n</doc>\n" for _ in range(MOST_PLAYERS))
    assert len(cut(AutoSegmenter(), text)) == MOST_PLAYERS
    pieces = cut(AutoSegmenter(), text * 3)
    assert MOST_PLAYERS / 4 < len(pieces) <= MOST_PLAYERS
    assert all(piece.startswith("<doc>") and piece.endswith("</doc>\n") for piece in pieces)
    messages = [f"{text}{number}" for number in range(MOST_PLAYERS + 1)]
    assert len(AutoSegmenter().split(chat(*messages))) == MOST_PLAYERS + 1


# --- documents and tools

QUESTION = "Use these.\nDocument 1: The bell is in Oslo. It rang.\nDocument 2: Ships sail.\nQuestion: Where is it?"


def test_documents() -> None:
    assert cut(DocumentSegmenter(), QUESTION) == [
        "Use these.\n",
        "Document 1: The bell is in Oslo. It rang.\n",
        "Document 2: Ships sail.\n",
        "Question: Where is it?",
    ]


def test_a_documents_mark_is_a_player_of_its_own_among_sentences() -> None:
    """So that masking a sentence never takes the mark away from the others."""
    assert sentences(QUESTION) == [
        "Use these.\n",
        "Document 1: ",
        "The bell is in Oslo. ",
        "It rang.\n",
        "Document 2: ",
        "Ships sail.\n",
        "Question: Where is it?",
    ]
    assert sentences("<doc>\nOne. Two.</doc><doc>Three.</doc>") == [
        "<doc>\n", "One. ", "Two.", "</doc>", "<doc>", "Three.", "</doc>",
    ]  # fmt: skip


def test_words_end_where_documents_do() -> None:
    assert cut(WordSegmenter(), "<doc>a b</doc><doc>c</doc>") == ["<doc>", "a ", "b", "</doc>", "<doc>", "c", "</doc>"]


def test_tables_and_code_are_cut_between_lines_only() -> None:
    text = "See:\n| a. B | c |\n|---|---|\n| D. E | f |\nDone. Yes.\n```\nx = 1. Y\n\nz\n```\nEnd."
    assert sentences(text) == [
        "See:\n", "| a. B | c |\n", "|---|---|\n", "| D. E | f |\n", "Done. ", "Yes.\n",
        "```\n", "x = 1. Y\n\n", "z\n", "```\n", "End.",
    ]  # fmt: skip


@pytest.mark.parametrize("segmenter", ALL, ids=lambda segmenter: segmenter.name)
def test_a_tool_definition_and_a_call_are_one_player_each(segmenter: Segmenter) -> None:
    text = '{"name": "f", "description": "One. Two.\\nDocument 1: a"}'
    messages = (Message("tool_definition", text, "f", "tool_definition"), Message("assistant", text, "f", "tool_call"))
    ranges = segmenter.split(an_exchange(messages=(*messages, Message("user", "Hi"))))
    assert [(piece.message, piece.start, piece.end) for piece in ranges] == [
        (0, 0, len(text)), (1, 0, len(text)), (2, 0, 2),
    ]  # fmt: skip


EXAMPLE = (
    Message("system", "Answer from the documents only."),
    Message(
        "user", "Use these.\nDocument 1: The bell is in Oslo. It rang.\nDocument 2: Ships sail.\nQuestion: Where is it?"
    ),
)


@pytest.mark.parametrize(("segmenter", "players"), list(zip(ALL, (2, 5, 8, 24, 8), strict=True)))
def test_the_example_in_the_documentation(segmenter: Segmenter, players: int) -> None:
    page = (Path(__file__).parents[3] / "docs" / "segments.md").read_text()
    assert f"| `{segmenter.name}` |" in page
    assert f"- **`{segmenter.name}`**: {'here the ' if segmenter.name == 'auto' else ''}{players} " in page
    assert len(segmenter.split(an_exchange(messages=EXAMPLE))) == players


# --- hostile texts: linear time, whoever writes the prompt


@pytest.mark.parametrize("segmenter", ALL, ids=lambda segmenter: segmenter.name)
@pytest.mark.parametrize(
    "text",
    [" " * 400_000 + "x", "." * 400_000, ".)" + ")" * 400_000, ". " * 200_000, ".  (" + "(" * 400_000, "\n " * 200_000],
    ids=["spaces", "stops", "closing", "stops and spaces", "opening", "lines"],
)
@pytest.mark.slow
@pytest.mark.timeout(120)  # the bound: a quadratic pattern takes far longer, a slow machine does not
def test_no_text_takes_long(segmenter: Segmenter, text: str) -> None:
    ranges = segmenter.split(chat(text))
    assert all(0 <= one.start < one.end <= len(text) for one in ranges)


@pytest.mark.parametrize("segmenter", ALL, ids=lambda segmenter: segmenter.name)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_no_marks_take_long(segmenter: Segmenter, text: str) -> None:
    ranges = segmenter.split(chat(text))
    assert all(0 <= one.start < one.end <= len(text) for one in ranges)
