"""What a page's form says -> a query. What makes no sense is left out, what can't be answered is said in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from spex_proxy.facts.errors import SpexError
from spex_proxy.facts.query import Noun, Query, fields_of
from spex_proxy.web.filters import checked

RANGES = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
_HINTS = get_type_hints(Query)
NAMES = (*(f.name for f in fields_of("exchanges")), "range")
"""Fields that stay in the address from page to page."""


def understood(asked: Mapping[str, str], noun: Noun, now: datetime) -> tuple[Query, str]:
    """The query, and why it can't be answered; empty if it can."""
    said = {f.name: _value(f.name, asked[f.name], f.metadata["limits"]) for f in fields_of(noun) if f.name in asked}
    query = Query(**{name: value for name, value in said.items() if value is not None})
    if query.since is None and asked.get("range") in RANGES:
        query = replace(query, since=now - RANGES[asked["range"]])
    try:
        return checked(query, noun), ""
    except SpexError as error:
        return query, str(error)


def _value(name: str, text: str, limits: Mapping[str, Any]) -> Any:
    kinds = _members(_HINTS[name])
    if datetime in kinds:
        return moment(text)
    for number in (int, float):
        if number in kinds:
            try:
                value = number(text)
            except ValueError:
                return None
            return value if limits.get("ge", value) <= value <= limits.get("le", value) else None
    words = [word for kind in kinds for word in _words(kind)]
    if words:
        found = text if text in words else None
        return (found,) if found and any(get_origin(kind) is tuple for kind in kinds) else found
    return text[: limits.get("max_length", 400)].strip() or None


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _words(kind: Any) -> list[str]:
    """Of a literal, or of a tuple of literals."""
    return [word for part in get_args(kind) for word in (get_args(part) or (part,)) if isinstance(word, str)]


def moment(text: str) -> datetime | None:
    """Without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
