"""Text of strangers, made fit to be shown: what is invisible is named, and nothing runs out of its place. Pure.

Escaping is the templates' business (autoescape); this is about characters that do their harm unescaped:
direction overrides, zero-width and tag characters, control characters, halves of surrogate pairs.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

_HIDDEN = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiners and fillers without a shape
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"  # zero width, directions
    "\ud800-\udfff"  # half a surrogate pair: JSON can carry it, UTF-8 can't
    "\U000e0000-\U000e0fff"  # tags and variation selectors: text that only a model reads
    "]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f]))"  # joiners outside the scripts that need them
)
_NAMES = {
    "\x00": "NUL",
    "\r": "CR",
    "\x1b": "ESC",
    "\u00ad": "soft hyphen",
    "\u200b": "zero-width space",
    "\u200c": "zero-width non-joiner",
    "\u200d": "zero-width joiner",
    "\u200e": "left-to-right mark",
    "\u200f": "right-to-left mark",
    "\u2028": "line separator",
    "\u2029": "paragraph separator",
    "\u202a": "left-to-right embedding",
    "\u202b": "right-to-left embedding",
    "\u202c": "end of direction",
    "\u202d": "left-to-right override",
    "\u202e": "right-to-left override",
    "\u2060": "word joiner",
    "\u2066": "left-to-right isolate",
    "\u2067": "right-to-left isolate",
    "\u2068": "first strong isolate",
    "\u2069": "end of isolate",
    "\ufeff": "byte order mark",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text, or (`is_hidden`) the name of characters that can't be seen."""

    text: str
    is_hidden: bool = False
    title: str = ""


def pieces(text: str) -> tuple[Piece, ...]:
    """The text in order, what is invisible named; line ends are LF alone."""
    return tuple(_pieces(text.replace("\r\n", "\n")))


def _pieces(text: str) -> Iterator[Piece]:
    run: list[str] = []
    for number, part in enumerate(_HIDDEN.split(text)):
        if number % 2:
            if run and run[-1] != part:
                yield _named(run)
                run = []
            run.append(part)
        elif part:
            if run:
                yield _named(run)
                run = []
            yield Piece(part)
    if run:
        yield _named(run)


def _named(run: list[str]) -> Piece:
    code = ord(run[0])
    tag = chr(code - 0xE0000) if 0xE0020 <= code <= 0xE007E else ""
    name = f"tag character {tag!r}" if tag else _NAMES.get(run[0], "not printable")
    times = f" ×{len(run)}" if len(run) > 1 else ""
    return Piece(f"U+{code:04X}{times}", True, f"{name}{times}: not visible, but the model reads it")


def plain(text: str) -> str:
    """One line of text without anything invisible, for labels, tool tips and file names."""
    return " ".join(_HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n")).split())


def label(text: str, width: int) -> str:
    """The beginning of a text, cut between words where that is possible."""
    line = plain(text[: 16 * width])
    if not line:
        return "(white space)"
    short = textwrap.shorten(line, width, placeholder="…")
    return short if len(short) > width // 3 else line[: width - 1] + "…" if len(line) > width else line
