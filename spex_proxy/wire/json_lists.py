"""The items of a JSON list inside a text: search results, rows, records."""

from __future__ import annotations

import re
from itertools import pairwise

_OPENING = re.compile(r'(?:^[ \t]{0,40}|"\s{0,3}:\s{0,3})(?P<list>\[)(?=\s{0,99}[{"])', re.MULTILINE)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
_TRIES = 8
"""Openings that are followed to their end. Most texts have none, results have one."""
_SHORTEST = 24
"""Characters that listed strings have on average if they are texts; below, they are names and labels."""


def json_items(text: str, start: int, end: int) -> list[tuple[int, int, int]]:
    """(start, end, start of the next) of each object or text in the lists of two or more that stand in a text."""
    items: list[tuple[int, int, int]] = []
    position = start
    for _ in range(_TRIES):
        opening = _OPENING.search(text, position, end)
        if opening is None:
            break
        found = _items(text, opening.start("list"), end)
        items += found
        position = found[-1][2] if found else opening.end()
    return items


def _items(text: str, opening: int, end: int) -> list[tuple[int, int, int]]:
    """The items of one list; none if it is not one of objects or texts, or not closed."""
    edges = [opening + 1]
    depth = 0
    for token in _TOKEN.finditer(text, opening, end):
        character = token[0]
        if character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
            if depth == 0:
                return _split(text, [*edges, token.start() + 1]) if character == "]" else []
        elif character == "," and depth == 1:
            edges.append(token.end())
    return []


def _split(text: str, edges: list[int]) -> list[tuple[int, int, int]]:
    """Edges are behind the opening bracket, behind each comma, behind the closing bracket."""
    pieces = [text[a : b - 1] for a, b in pairwise(edges)]
    is_texts = sum(map(len, pieces)) >= _SHORTEST * len(pieces)
    wanted = '{"' if is_texts else "{"
    if len(pieces) < 2 or not all(piece.strip()[:1] in tuple(wanted) for piece in pieces):
        return []
    starts = [edge + len(piece) - len(piece.lstrip()) for edge, piece in zip(edges, pieces, strict=False)]
    ends = [edge + len(piece.rstrip()) for edge, piece in zip(edges, pieces, strict=False)]
    return list(zip(starts, ends, [*starts[1:], ends[-1]], strict=True))
