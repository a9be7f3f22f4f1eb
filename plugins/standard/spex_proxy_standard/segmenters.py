"""Segmenters: what the players of a prompt are. docs/segments.md shows an example of each.

All of them cover each message from its first to its last character. Text that only
frames the prompt (the chat template) is not theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from spex_proxy.facts.exchange import Exchange, TextRange
from spex_proxy_standard.outline import Outline, documents_together, sentences_together

ENOUGH_PLAYERS = 8
"""With fewer, `auto` looks one level finer: a handful of players says little."""
MOST_PLAYERS = 64
"""With more, `auto` looks one level coarser: 256 masks, the default budget, are four for each of these."""
_WIDEN = 1.3
"""How much longer pieces become with each try to get below that."""


class MessageSegmenter:
    """Each message is one player; so is each part of a list, each tool definition and each tool call."""

    name = "message"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return _ranges(_outlines(exchange), lambda outline: [len(outline.text)])


class DocumentSegmenter:
    """Each document in a message is one player, and each text between documents."""

    name = "document"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return _ranges(_outlines(exchange), lambda outline: outline.documents)


class SentenceSegmenter:
    """Each sentence is one player, and each document's mark. Line breaks end sentences, abbreviations do not."""

    name = "sentence"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return _ranges(_outlines(exchange), lambda outline: outline.sentences)


class WordSegmenter:
    """Each white-space separated word is one player; in Chinese and Japanese, each character."""

    name = "word"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return _ranges(_outlines(exchange), lambda outline: outline.words)


class AutoSegmenter:
    """As fine as a budget of 256 masks can tell apart.

    Sentences; words where there are fewer than 8 sentences and at most 64 words. Of more than
    64 sentences, neighbours are put together: sentences of a document, then documents of a message.
    """

    name = "auto"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        outlines = _outlines(exchange)
        sentences = _ranges(outlines, lambda outline: outline.sentences)
        if len(sentences) < ENOUGH_PLAYERS:
            words = _ranges(outlines, lambda outline: outline.words)
            return words if len(sentences) < len(words) <= MOST_PLAYERS else sentences
        if len(sentences) <= MOST_PLAYERS:
            return sentences
        return _put_together(outlines)


def _put_together(outlines: Sequence[tuple[int, Outline]]) -> list[TextRange]:
    """Neighbouring sentences as one player, as few of them as leave no more players than there may be;
    else neighbouring documents; else, of a conversation with more messages than that, the messages."""
    characters = sum(len(outline.text) for _, outline in outlines)
    for together in (sentences_together, documents_together):
        most = characters / MOST_PLAYERS
        while most <= _WIDEN * characters:
            ranges = _ranges(outlines, partial(together, most=most))
            if len(ranges) <= MOST_PLAYERS:
                return ranges
            most *= _WIDEN
    return _ranges(outlines, lambda outline: [len(outline.text)])


def _outlines(exchange: Exchange) -> list[tuple[int, Outline]]:
    """The messages that have text, with their numbers."""
    return [(number, Outline(message)) for number, message in enumerate(exchange.messages) if message.text.strip()]


def _ranges(outlines: Sequence[tuple[int, Outline]], cuts: Callable[[Outline], list[int]]) -> list[TextRange]:
    return [
        TextRange(number, start, end) for number, outline in outlines for start, end in pairwise([0, *cuts(outline)])
    ]
