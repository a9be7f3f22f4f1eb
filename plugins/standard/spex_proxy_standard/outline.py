"""Where a text may be cut: behind documents, paragraphs, sentences, words.

Each kind of cut is also one of the next finer kind. The white space behind a piece
belongs to it, so that masking it leaves no gap behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise

from spex_proxy.facts.exchange import Message
from spex_proxy.wire.documents import stretches
from spex_proxy.wire.marks import HEADING, fences, is_fenced

_SENTENCE_END = re.compile(
    r"""(?<=[.!?…؟।])["'”“’‘»«)\]]*\s+(?=["'“„‘‚«»(\[]*[^\Wa-z_])  # a stop, then something that starts anew
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
_NO_STOP_BEFORE_DIGIT = re.compile(r"(?:^|[\s(])(?:Nos?|[Vv]ol|pp?)\.$")
_LONGEST_NO_STOP = 16
"""Characters before a stop that decide whether it is one; list items are indented by fewer."""
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters and Japanese kana, between which words have no space."""
_WORD = re.compile(rf"[{_UNSPACED}][^\w\s]*\s*|[^\s{_UNSPACED}]+\s*|\s+")
_BLANK_LINES = re.compile(r"\n[ \t\r]*\n\s*")
_TABLE = re.compile(r"(?:^[ \t]{0,3}\|[^\n]*\n?){2,}", re.MULTILINE)


class Outline:
    """One message with the places where it may be cut. A tool definition or call is never cut."""

    def __init__(self, message: Message) -> None:
        self.text = message.text
        self._is_whole = message.kind != "text"
        self._stretches = () if self._is_whole else stretches(self.text)

    @cached_property
    def documents(self) -> list[int]:
        """Ends of documents, and of what stands between them."""
        return self._cuts(stretch.end for stretch in self._stretches)

    @cached_property
    def paragraphs(self) -> list[int]:
        """Ends of paragraphs too. Code in fences and tables are each one; a heading goes with what it is above."""
        if self._is_whole:
            return self.documents
        blank = (found.end() for found in _BLANK_LINES.finditer(self.text) if not self._is_inside(found.start()))
        headings = (found.start() for found in HEADING.finditer(self.text) if not self._is_inside(found.start()))
        edges = (edge for block in self._blocks for edge in block)
        return self._cuts([*self.documents, *blank, *headings, *edges])

    @cached_property
    def sentences(self) -> list[int]:
        """Ends of sentences too, and of the marks of documents. In code and tables, lines are sentences."""
        if self._is_whole:
            return self.documents
        return self._cuts([*self.paragraphs, *self._mark_edges(), *self._sentence_ends()])

    @cached_property
    def words(self) -> list[int]:
        """Ends of words too; in Chinese and Japanese, of characters."""
        if self._is_whole:
            return self.documents
        return self._cuts([*self.sentences, *(found.end() for found in _WORD.finditer(self.text))])

    @cached_property
    def _blocks(self) -> list[tuple[int, int]]:
        """Fenced code and tables, disjoint and in order."""
        code = [(start, min(end + 1, len(self.text))) for start, end in fences(self.text)]
        tables = [found.span() for found in _TABLE.finditer(self.text) if not is_fenced(found.start(), code)]
        return sorted(code + tables)

    def _is_inside(self, position: int) -> bool:
        """In the middle of code or a table."""
        return is_fenced(position, self._blocks)

    def _mark_edges(self) -> Iterator[int]:
        """Between a mark and the text of its document. A bare bracket or comma is no mark."""
        for stretch in self._stretches:
            if any(character.isalnum() for character in self.text[stretch.start : stretch.body]):
                yield stretch.body
            if any(character.isalnum() for character in self.text[stretch.body_end : stretch.end]):
                yield stretch.body_end

    def _sentence_ends(self) -> Iterator[int]:
        for found in _SENTENCE_END.finditer(self.text):
            if "\n" in found[0]:
                yield found.end()
            elif not self._is_inside(found.start()):
                following = self.text[found.end() : found.end() + 1]
                if _is_stop(self.text, found.start(), following):
                    yield found.end()

    def _cuts(self, ends: Iterable[int]) -> list[int]:
        """Ends of pieces, from the first to the text's. A piece of white space alone joins the one before it."""
        cuts = [0]
        for end in [*sorted(set(ends)), len(self.text)]:
            if self.text[cuts[-1] : end].strip():
                cuts.append(end)
            elif len(cuts) > 1:
                cuts[-1] = end
        return cuts[1:]


def sentences_together(outline: Outline, most: float) -> list[int]:
    """Neighbouring sentences of one document, about `most` characters; up to a paragraph's end if that is near."""
    return _together(outline.sentences, most, walls=outline.documents, rests=outline.paragraphs)


def documents_together(outline: Outline, most: float) -> list[int]:
    """Neighbouring documents of up to about `most` characters."""
    return _together(outline.documents, most, walls=outline.documents[-1:], rests=outline.documents)


def _together(cuts: Sequence[int], most: float, *, walls: Sequence[int], rests: Sequence[int]) -> list[int]:
    never_across, good_ends = set(walls), set(rests)
    kept: list[int] = []
    start = 0
    for end, following in pairwise([*cuts, 0]):
        is_full = following - start > most or (end in good_ends and end - start > most / 2)
        if end in never_across or is_full:
            kept.append(end)
            start = end
    return kept


def _is_stop(text: str, end: int, following: str) -> bool:
    """False if the full stop at the end of `text[:end]` only marks an abbreviation or a number."""
    start = max(0, end - _LONGEST_NO_STOP)
    if following.isdigit() and _NO_STOP_BEFORE_DIGIT.search(text, start, end):
        return False
    return not _NO_STOP.search(text, start, end)
