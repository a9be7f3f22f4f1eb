"""Players are paragraphs. Imports what a plugin may import: spex_proxy.facts, .plug, .wire and .engine."""

from __future__ import annotations

import re
from collections.abc import Sequence

from spex_proxy.facts.exchange import Exchange, TextRange


class ParagraphSegmenter:
    """What stands between blank lines is one player."""

    name = "paragraph"

    def split(self, exchange: Exchange) -> Sequence[TextRange]:
        return [
            TextRange(number, found.start(), found.end())
            for number, message in enumerate(exchange.messages)
            for found in re.finditer(r"\S(?:.|\n(?!\s*\n))*", message.text)
        ]


class Message(ParagraphSegmenter):
    """Wants a name that a built-in plugin has."""

    name = "message"


class WrittenForAnotherVersion:
    """Has a method of another name."""

    name = "old"

    def segment(self, text: str) -> list[str]:
        return [text]
