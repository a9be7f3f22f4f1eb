"""What operators write to find texts by: expressions of RE2, and names with `*`. Time linear in the text, always."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

SEARCHED_CHARACTERS = 65_536
"""Of each text, so many characters from its start are searched."""
_PROGRAM_BYTES = 1 << 20
"""Room for one compiled expression; a larger one is refused when the file is read."""


@lru_cache(maxsize=256)
def expression(pattern: str) -> Any:
    """An RE2 expression. Raises ValueError with RE2's own words; it has no lookaround and no back-references."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PROGRAM_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        raise ValueError(said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)) from None


def fits_glob(pattern: str, value: str) -> bool:
    """`*` stands for any characters. Linear: each piece is looked for once, from where the last one ended."""
    first, *rest = pattern.split("*")
    if not rest:
        return value == pattern
    if not value.startswith(first):
        return False
    position = len(first)
    for piece in rest[:-1]:
        found = value.find(piece, position)
        if found < 0:
            return False
        position = found + len(piece)
    return len(value) - len(rest[-1]) >= position and value.endswith(rest[-1])
