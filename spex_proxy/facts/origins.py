"""Where a part of a prompt comes from, in few words: for searching, and without anything that a client made up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from spex_proxy.facts.exchange import KNOWN_ROLES, MARK_ARROW, Segment

Origin = Literal[
    "system", "developer", "user", "assistant", "tool", "function", "tool_definition", "tool_call", "document",
    "prompt", "other",
]  # fmt: skip
"""A message's role; `tool_call` for what an earlier answer called; `document` for a document inside any message,
beside the role of that message; `other` for roles that clients invented."""

ORIGINS: tuple[Origin, ...] = get_args(Origin)
"""Their places are stored as bits: new ones go to the end."""


def bit(origin: Origin) -> int:
    return 1 << ORIGINS.index(origin)


def origins_of(segment: Segment) -> frozenset[Origin]:
    """All that it is."""
    whole, arrow, _ = segment.provenance.partition(MARK_ARROW)
    found: list[Origin] = ["document"] if arrow else []
    if whole.endswith(" tool call"):
        found.append("tool_call")
    elif segment.role in KNOWN_ROLES and segment.role in ORIGINS:
        found.append(segment.role)
    else:
        found.append("other")
    return frozenset(found)


def bits_of(segments: Iterable[Segment]) -> int:
    """The origins of several segments, one bit each."""
    return sum(bit(origin) for origin in frozenset().union(*(origins_of(segment) for segment in segments)))


def named(bits: int) -> tuple[Origin, ...]:
    """The inverse, in the order of ORIGINS."""
    return tuple(origin for origin in ORIGINS if bits & bit(origin))
