"""Text of strangers: what is invisible is named, the rest stays as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.study.text import label, pieces, plain


def shown(text: str) -> str:
    return "".join(f"[{piece.text}]" if piece.is_hidden else piece.text for piece in pieces(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text,\n\twith tabs", "plain text,\n\twith tabs"),
        ("a\r\nb\rc", "a\nb[U+000D]c"),
        ("a\u202eb\u202c", "a[U+202E]b[U+202C]"),
        ("a\u200b\u200b\u200bb", "a[U+200B ×3]b"),
        ("\ud800", "[U+D800]"),
        ("\x00\x1b[31m", "[U+0000][U+001B][31m"),
        ("hi\U000e0068\U000e0069", "hi[U+E0068][U+E0069]"),
        # joiners that do nothing are named, those that a script or an emoji needs are not
        ("pass\u200dword", "pass[U+200D]word"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("e\u0301 ☀\ufe0f שלום", "e\u0301 ☀\ufe0f שלום"),
    ],
)
def test_invisible_characters_are_named_and_others_untouched(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_a_tag_character_says_which_letter_it_hides() -> None:
    (piece,) = pieces("\U000e0049")
    assert "'I'" in piece.title
    assert "the model reads it" in piece.title


@given(st.text(st.characters(), max_size=80))
def test_nothing_is_lost_and_everything_can_be_sent(text: str) -> None:
    parts = pieces(text)
    assert "".join(p.text for p in parts if not p.is_hidden) in text.replace("\r\n", "\n") or len(parts) > 1
    for part in parts:
        (part.text + part.title).encode("utf-8")
    plain(text).encode("utf-8")
    assert "\n" not in plain(text)


@given(st.text(max_size=200), st.integers(8, 60))
def test_a_label_is_one_short_line(text: str, width: int) -> None:
    assert 0 < len(label(text, width)) <= max(width, len("(white space)"))


def test_a_label_is_cut_between_words_or_within_one_that_is_long() -> None:
    assert label("The bell is in Oslo and rings twice", 19) == "The bell is in…"
    assert label("x" * 50, 10) == "x" * 9 + "…"
    assert label(" \n ", 10) == "(white space)"
