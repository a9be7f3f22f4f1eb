"""An exchange cut into words, for servers that have no tokenizer to ask; and how much of an answer came again.

Words stand where token ids stand elsewhere: numbered in the order in which they first occur, so that players, masks,
probes and their seals are made of them as of ids. No server ever sees these numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.evidence import LogProbs
from spex_proxy.facts.exchange import OBSTACLES, Exchange, MessagePlace, TokenizedExchange

_PIECE = re.compile(r"\w+|\s+|[^\w\s]")
_SPOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+$")
_WORD = re.compile(r"\w+|[^\w\s]")
MOST_WORDS = 4_000
"""Of each answer that are compared: matching takes time in proportion to their product."""


def in_words(exchange: Exchange) -> TokenizedExchange:
    """Prompt and answer as words. Only texts can be taken out of a request, so only they have a place.

    Raises CannotExplain where there is nothing to take out, or nothing was said.
    """
    if exchange.obstacle is not None:
        raise CannotExplain(OBSTACLES.get(exchange.obstacle, exchange.obstacle))
    if not any(message.text for message in exchange.messages):
        raise CannotExplain("the prompt was sent as token ids, so there is no text to cut into segments")
    if not exchange.output_text.strip():
        raise CannotExplain("the answer has no words, so there is nothing to explain")
    text, places = "", list[MessagePlace | None]()
    for message in exchange.messages:
        text += f"{message.role}: "  # nobody's, as a template's tokens are
        is_text = message.kind == "text" and bool(message.text)
        places.append(MessagePlace(len(text), len(text) + len(message.text)) if is_text else None)
        text += f"{message.text}\n"
    prompt, output = _cut(_PIECE, text), _cut(_SPOKEN, exchange.output_text)
    pieces = [text[start:end] for start, end in prompt] + [exchange.output_text[start:end] for start, end in output]
    numbers: dict[str, int] = {}
    ids = tuple(numbers.setdefault(piece, len(numbers)) for piece in pieces)
    return TokenizedExchange(
        prompt_ids=ids[: len(prompt)],
        prompt_text=text,
        offsets=prompt,
        places=tuple(places),
        output_ids=ids[len(prompt) :],
        ids_source="words",
        output_text=exchange.output_text,
        output_offsets=output,
    )


def _cut(pattern: re.Pattern[str], text: str) -> tuple[tuple[int, int], ...]:
    """Pieces without gaps."""
    ends = [found.end() for found in pattern.finditer(text)]
    return tuple(pairwise([0, *ends]))


def came_again(text: str, offsets: Sequence[tuple[int, int]], again: str) -> LogProbs:
    """Shape (k,): for each token of an answer (characters [start, end) of `text`) the share of its visible characters,
    0 to 1, that `again` has too, in the same order, case aside.

    Words are matched by difflib (Ratcliff and Obershelp 1988: the longest common run, then likewise on both sides).
    """
    end = offsets[-1][1] if offsets else 0
    before = list(_WORD.finditer(text, 0, end))[:MOST_WORDS]
    after = _WORD.findall(again.lower())[:MOST_WORDS]
    matcher = SequenceMatcher(None, [found.group().lower() for found in before], after, autojunk=False)
    is_matched = np.zeros(len(text) + 1)
    for block in matcher.get_matching_blocks():
        for found in before[block.a : block.a + block.size]:
            is_matched[found.start() : found.end()] = 1.0
    visible = np.asarray([not character.isspace() for character in text] + [False], dtype=np.float64)
    shares = [is_matched[a:b].sum() / max(1.0, visible[a:b].sum()) for a, b in offsets]
    return np.asarray(shares, dtype=np.float32)
