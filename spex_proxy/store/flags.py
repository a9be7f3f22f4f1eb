"""Flags: on exchanges and on explanations, kept once, never changed."""

from __future__ import annotations

import dataclasses
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.explanation import Explanation, Flag
from spex_proxy.store.columns import DEFAULT_PROJECT
from spex_proxy.store.rows import insert_new
from spex_proxy.store.tables_of_flags import flags

_IDS = uuid.UUID("5f1a9a2c-8c2e-4b1d-9a40-5370657846a6")
"""Namespace of the ids of flags on exchanges."""
_FLAG = [flags.c[field.name] for field in dataclasses.fields(Flag)]


@dataclass(frozen=True, slots=True)
class Raised:
    """A flag as it was kept: what it is about, who sent it, when."""

    id: str
    exchange_id: str | None
    explanation_id: str | None
    """None: the exchange itself was flagged."""
    who: str | None
    raised_at: datetime
    flag: Flag


def raise_on_exchange(
    conn: sa.Connection,
    exchange_id: str,
    flag: Flag,
    at: datetime,
    *,
    position: int = 0,
    who: str | None = None,
    key: str | None = None,
    project: str = DEFAULT_PROJECT,
) -> bool:
    """Flag a stored exchange; False, changing nothing, if it is flagged so already.

    What counts as the same: the same flagger, name and sender; with a `key`, the same key.
    """
    same = ("key", key) if key is not None else (flag.flagger, flag.name, who or "")
    row = dataclasses.asdict(flag) | {
        "project": project,
        "id": str(uuid.uuid5(_IDS, "\n".join((project, exchange_id, *same)))),
        "exchange_id": exchange_id,
        "position": position,
        "who": who,
        "raised_at": at,
    }
    return insert_new(conn, flags, row)


def save_of_explanation(conn: sa.Connection, explanation: Explanation) -> None:
    """Those that an explanation carries, in their order."""
    rows: list[dict[str, Any]] = [
        dataclasses.asdict(flag)
        | {
            "project": explanation.project,
            "id": f"{explanation.id}:{position}",
            "exchange_id": explanation.exchange_id,
            "explanation_id": explanation.id,
            "position": position,
            "raised_at": explanation.created_at,
        }
        for position, flag in enumerate(explanation.flags)
    ]
    if rows:
        conn.execute(sa.insert(flags), rows)


def of_explanation(conn: sa.Connection, explanation_id: str, *, project: str = DEFAULT_PROJECT) -> tuple[Flag, ...]:
    """Those that an explanation carries, in their order."""
    return tuple(of_explanations(conn, project, [explanation_id]).get(explanation_id, ()))


def of_explanations(conn: sa.Connection, project: str, ids: Sequence[str]) -> Mapping[str, list[Flag]]:
    """Explanation -> its flags, in their order; nothing for one that has none."""
    raised: dict[str, list[Flag]] = defaultdict(list)
    if ids:
        query = sa.select(flags.c.explanation_id, *_FLAG).where(
            flags.c.project == project, flags.c.explanation_id.in_(ids)
        )
        for explanation_id, *fields in conn.execute(query.order_by(flags.c.explanation_id, flags.c.position)):
            raised[explanation_id].append(Flag(*fields))
    return raised


def of_exchange(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> tuple[Raised, ...]:
    """All flags of an exchange and of its explanations, oldest first."""
    return tuple(of_exchanges(conn, project, [exchange_id]).get(exchange_id, ()))


def of_exchanges(conn: sa.Connection, project: str, ids: Sequence[str]) -> Mapping[str, list[Raised]]:
    """Exchange -> all flags of it and of its explanations, oldest first; nothing for one that has none."""
    raised: dict[str, list[Raised]] = defaultdict(list)
    if ids:
        about = (flags.c.id, flags.c.exchange_id, flags.c.explanation_id, flags.c.who, flags.c.raised_at)
        query = sa.select(*about, *_FLAG).where(flags.c.project == project, flags.c.exchange_id.in_(ids))
        order = (flags.c.exchange_id, flags.c.raised_at, flags.c.position, flags.c.id)
        for row in conn.execute(query.order_by(*order)):
            raised[row.exchange_id].append(Raised(*row[:5], flag=Flag(*row[5:])))
    return raised
