"""Segmenters: what the players of a prompt are.

All of them cover each message from its first to its last character: the white
space behind a sentence or word belongs to it, so that masking it leaves no gap
behind. Text that only frames the prompt (the chat template) is not theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from spex_proxy.facts.exchange import Exchange, TextRange

ENOUGH_PLAYERS = 8
"""With fewer, `auto` looks one level finer: a handful of players says little."""
MOST_WORDS = 96
"""With more, `auto` stays with sentences: the budget would not reach."""

_SENTENCE_END = re.compile(
    r"""(?<=[.!?…؟।])["'”’)\]]*\s+(?=["'“‘(\[]*[^\Wa-z_])  # a stop, then something that starts anew
        | [。！？｡]+[」』”’）]*\s*                           # stops that need no space behind them
        | \n\s*                                            # a line break ends a sentence too
    """,
    re.VERBOSE,
)
_NO_STOP = re.compile(
    r"""(?:^|[\s(])(?:Dr|Mr|Mrs|Ms|Prof|St|vs|etc|e\.g|i\.e|Fig|Jr|Sr|Inc|Ltd|approx|al)\.$  # an abbreviation
        | (?:^|[\s(.])[A-Z]\.$                              # an initial: J.R.R. Tolkien, U.S. Army
        | (?:^|\n)[ \t]*\d{1,3}\.$                          # the number of a list's item
    """,
    re.VERBOSE,
)
_NO_STOP_BEFORE_DIGIT = re.compile(r"(?:^|[\s(])(?:No|Nos|Vol|pp?)\.$")
_LONGEST_NO_STOP = 16
"""Characters before a stop that decide whether it is one; list items are indented by fewer."""
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters and Japanese kana, between which words have no space."""
_WORD = re.compile(rf"[{_UNSPACED}][^\w\s]*\s*|[^\s{_UNSPACED}]+\s*|\s+")


class MessageSegmenter:
    """Each message is one player."""

    name = "message"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return [
            TextRange(number, 0, len(message.text))
            for number, message in enumerate(exchange.messages)
            if message.text.strip()
        ]


class SentenceSegmenter:
    """Each sentence is one player. Line breaks end sentences, abbreviations do not."""

    name = "sentence"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return [
            TextRange(number, start, end)
            for number, message in enumerate(exchange.messages)
            for start, end in _pieces(message.text, _sentence_ends(message.text))
        ]


class WordSegmenter:
    """Each white-space separated word is one player; in Chinese and Japanese, each character."""

    name = "word"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return [
            TextRange(number, start, end)
            for number, message in enumerate(exchange.messages)
            for start, end in _pieces(message.text, (found.end() for found in _WORD.finditer(message.text)))
        ]


class AutoSegmenter:
    """Sentences; words where there are fewer than 8 sentences and the words fit a budget."""

    name = "auto"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        sentences = SentenceSegmenter().split(exchange)
        if len(sentences) >= ENOUGH_PLAYERS:
            return sentences
        words = WordSegmenter().split(exchange)
        return words if len(sentences) < len(words) <= MOST_WORDS else sentences


def _sentence_ends(text: str) -> Iterator[int]:
    for found in _SENTENCE_END.finditer(text):
        if "\n" in found[0] or _is_stop(text, found.start(), text[found.end() : found.end() + 1]):
            yield found.end()


def _is_stop(text: str, end: int, following: str) -> bool:
    """False if the full stop at the end of `text[:end]` only marks an abbreviation or a number."""
    start = max(0, end - _LONGEST_NO_STOP)
    if following.isdigit() and _NO_STOP_BEFORE_DIGIT.search(text, start, end):
        return False
    return not _NO_STOP.search(text, start, end)


def _pieces(text: str, ends: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Cut `text` at `ends`; a piece of white space alone joins the piece before it."""
    cuts = [0]
    for end in [*ends, len(text)]:
        if text[cuts[-1] : end].strip():
            cuts.append(end)
    if len(cuts) > 1:
        cuts[-1] = len(text)
    yield from pairwise(cuts)
