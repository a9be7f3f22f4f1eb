"""Any id finds it: whatever a person has copied from a log, a client or a trace viewer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.store.columns import DEFAULT_PROJECT
from spex_proxy.store.tables import exchanges, explanations

FoundBy = Literal["exchange", "response", "trace", "explanation"]

MIN_PREFIX = 8
_SHOWN = 5

_AFTER_ANY = "\U0010ffff"
"""The last code point: [prefix, prefix + this) holds what begins with the prefix, in byte order."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an id stands for."""

    project: str
    exchange_id: str | None
    """None for explanations that belong to no exchange."""
    explanation_ids: tuple[str, ...]
    """Newest first. If the id named one explanation, that one alone."""
    found_by: FoundBy
    """What kind of id it was."""


@dataclass(frozen=True, slots=True)
class _Hit:
    found_by: FoundBy
    exchange_id: str | None
    explanation_id: str | None

    def __str__(self) -> str:
        return f"explanation {self.explanation_id}" if self.explanation_id else f"exchange {self.exchange_id}"


def find(conn: sa.Connection, any_id: str, project: str = DEFAULT_PROJECT) -> Found:
    """Our id, vLLM's response id, a trace id, an explanation's id or its job's trace id.

    A whole id wins over a beginning, which needs at least 8 characters and must be unique.
    Raises NotFound, with what to try next, if nothing or more than one thing has that id.
    """
    text = any_id.strip()
    if not text:
        raise NotFound("an empty id finds nothing")
    hits = _hits(conn, project, lambda column: column == text)
    if not hits and len(text) >= MIN_PREFIX:
        hits = _hits(conn, project, lambda column: sa.and_(column >= text, column < text + _AFTER_ANY))
    if not hits:
        raise NotFound(
            f"nothing in project {project!r} has the id {text!r}: tried ids of exchanges and explanations, "
            f"response ids and trace ids, whole and (from {MIN_PREFIX} characters on) their beginnings. "
            "A request that was not captured can't be found"
        )
    return _resolve(conn, project, text, hits)


def _hits(conn: sa.Connection, project: str, matches: Callable[[sa.Column[str]], sa.ColumnElement[bool]]) -> list[_Hit]:
    """At most a few more rows than an ambiguity's message shows; each source is one range of an index."""
    none = sa.null()
    sources: tuple[tuple[FoundBy, sa.Column[str]], ...] = (
        ("exchange", exchanges.c.id),
        ("response", exchanges.c.upstream_id),
        ("trace", exchanges.c.trace_id),
        ("explanation", explanations.c.id),
        ("trace", explanations.c.trace_id),
    )
    hits: dict[tuple[str | None, str | None], _Hit] = {}
    for found_by, column in sources:
        owner = column.table
        chosen = (owner.c.id, none) if owner is exchanges else (owner.c.exchange_id, owner.c.id)
        query = sa.select(*chosen).where(owner.c.project == project, matches(column)).limit(_SHOWN + 1)
        for exchange_id, explanation_id in conn.execute(query):
            hits.setdefault((exchange_id, explanation_id), _Hit(found_by, exchange_id, explanation_id))
    return list(hits.values())


def _resolve(conn: sa.Connection, project: str, text: str, hits: list[_Hit]) -> Found:
    first = hits[0]
    if len(hits) == 1 and first.explanation_id is not None:
        return Found(project, first.exchange_id, (first.explanation_id,), first.found_by)
    # An exchange and its explanations are made within a minute of each other, so that the beginnings of
    # their time-ordered ids are often the same. They are one thing to whoever asks.
    if first.exchange_id is None or any(hit.exchange_id != first.exchange_id for hit in hits):
        shown = ", ".join(str(hit) for hit in hits[:_SHOWN]) + (", ..." if len(hits) > _SHOWN else "")
        raise NotFound(f"{text!r} stands for more than one thing: {shown}. Use one of these ids")
    query = (
        sa.select(explanations.c.id)
        .where(explanations.c.project == project, explanations.c.exchange_id == first.exchange_id)
        .order_by(explanations.c.created_at.desc(), explanations.c.id.desc())
    )
    return Found(project, first.exchange_id, tuple(conn.scalars(query)), first.found_by)
