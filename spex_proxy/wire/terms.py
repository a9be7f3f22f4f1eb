"""Texts as words for searching: the same ones for a text that is stored and for what is looked for.

Both databases index these words and not the text, so that they find the same: lower case, no accents, every
sign between letters and digits a border. Chinese, Japanese and Korean are written without borders: there each
character is a word, and a run of them is looked for in order.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST_WORD = 64
"""Characters; what is longer is found by its beginning, since it is cut the same way when it is looked for."""
MOST_CHARACTERS = 131_072
"""Of one exchange: what stands behind them is not found. PostgreSQL refuses more than 1 MB of words."""

_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_QUOTED = re.compile(r'"([^"]*)"?|([^\s"]+)')


def words(text: str) -> list[str]:
    """In order."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))
    return [word[:LONGEST_WORD] for word in _WORD.findall(text.lower())]


def phrases(query: str) -> list[list[str]]:
    """What is looked for: every phrase must occur, its words side by side. `"no refund" taxi` has two."""
    found = (words(quoted or plain) for quoted, plain in _QUOTED.findall(query))
    return [phrase for phrase in found if phrase]
