"""Captured requests: metadata in `exchanges`, text and token ids in `contents`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.exchange import Exchange, TokenizedExchange, TraceRef
from spex_proxy.store import codec, search
from spex_proxy.store.columns import DEFAULT_PROJECT, utc_now
from spex_proxy.store.rows import get_or_create_project, insert_all_new, insert_new
from spex_proxy.store.tables import contents, exchanges, retest_texts

Part = Literal["exchange", "tokens"]

SALT_BYTES = 32

_METADATA = (
    "id",
    "project",
    "kind",
    "model",
    "finish_reason",
    "upstream_id",
    "streamed",
    "received_at",
    "first_byte_s",
    "duration_s",
    "prompt_tokens",
    "output_tokens",
    "capture_probability",
)
"""Fields of Exchange that are columns of the same name; all others are content."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An exchange to keep, and what is decided about it."""

    exchange: Exchange
    trace: TraceRef | None
    """Our request span."""
    traceparent: str | None
    """The caller's headers."""
    tracestate: str | None
    explain: bool
    why: str
    explain_probability: float
    rule: str | None = None
    """The rule, of the version `rules_digest`, that decided about `explain`."""
    rules_digest: str | None = None


def save_captured(conn: sa.Connection, batch: Sequence[Kept]) -> set[str]:
    """Keep exchanges and their contents, each under a fresh salt; returns the ids of those that were new.

    Nothing changes for an id that is known: whoever is unsure whether an earlier attempt was committed
    may simply try again.
    """
    for project in {kept.exchange.project for kept in batch}:
        get_or_create_project(conn, project)
    new = insert_all_new(conn, exchanges, [_row(kept) for kept in batch], "id")
    fresh = {kept.exchange.id: kept.exchange for kept in reversed(batch) if kept.exchange.id in new}.values()
    now = utc_now()
    parts = [
        {"project": e.project, "exchange_id": e.id, "part": "exchange", "blob": codec.encode_content(e)}
        | {"salt": secrets.token_bytes(SALT_BYTES), "created_at": now}
        for e in fresh
    ]
    if parts:
        conn.execute(sa.insert(contents), parts)
    search.index_exchanges(conn, list(fresh))
    return new


def _row(kept: Kept) -> dict[str, Any]:
    exchange, trace = kept.exchange, kept.trace
    return {name: getattr(exchange, name) for name in _METADATA} | {
        "n_messages": sum(text.kind == "text" and text.part in (None, 1) for text in exchange.messages),
        "trace_id": trace.trace_id if trace else None,
        "span_id": trace.span_id if trace else None,
        "trace_sampled": trace.is_sampled if trace else None,
        "traceparent": kept.traceparent,
        "tracestate": kept.tracestate,
        "explain": kept.explain,
        "explain_why": kept.why,
        "explain_probability": kept.explain_probability,
        "rule": kept.rule,
        "rules_digest": kept.rules_digest,
    }


def known_among(conn: sa.Connection, batch: Sequence[Exchange]) -> set[str]:
    """Ids of those that were saved before."""
    this = (exchanges.c.project.in_({e.project for e in batch}), exchanges.c.id.in_([e.id for e in batch]))
    found = {(row.project, row.id) for row in conn.execute(sa.select(exchanges.c.project, exchanges.c.id).where(*this))}
    return {e.id for e in batch if (e.project, e.id) in found}


def load_exchange(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> Exchange:
    """The exchange, equal to what was saved. Raises NotFound, also if its content was erased; VerificationFailed for
    damaged bytes; SpexError for what a newer version wrote."""
    row = _load_row(conn, exchange_id, project)
    what = f"content of {exchange_id}"
    content = codec.decode_content(_load_part(conn, project, exchange_id).blob, what)
    return codec.build(Exchange, {name: row[name] for name in _METADATA} | content, what)


def newest_games(conn: sa.Connection, model: str, limit: int, *, project: str = DEFAULT_PROJECT) -> list[str]:
    """Ids of stored games over this model or data set."""
    this = (exchanges.c.project == project, exchanges.c.model == model, exchanges.c.kind == "game")
    newest = sa.select(exchanges.c.id).where(*this).order_by(exchanges.c.received_at.desc()).limit(limit)
    return list(conn.scalars(newest))


def load_trace(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> TraceRef | None:
    """Our span of the request, or None if it had none. Raises NotFound."""
    row = _load_row(conn, exchange_id, project)
    if row["trace_id"] is None or row["span_id"] is None:
        return None
    return TraceRef(row["trace_id"], row["span_id"], bool(row["trace_sampled"]))


def load_salt(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> bytes:
    """The 32 bytes that key every digest of this exchange's content. Raises NotFound, also once erased."""
    salt: bytes = _load_part(conn, project, exchange_id).salt
    return salt


def save_tokens(
    conn: sa.Connection, exchange_id: str, tokens: TokenizedExchange, *, project: str = DEFAULT_PROJECT
) -> bool:
    """Keep the token ids of an exchange. The first ones stay, since games already cite their ranges.

    Returns False, changing nothing, if there are some. Raises NotFound for an exchange that is unknown
    or erased: what was forgotten is not written down again.
    """
    _load_part(conn, project, exchange_id)
    return _save_part(conn, project, exchange_id, "tokens", codec.encode_tokens(tokens), None)


def load_tokens(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> TokenizedExchange | None:
    """The token ids, or None if nobody has found them yet. Raises NotFound if unknown or erased."""
    _load_part(conn, project, exchange_id)
    row = _find_part(conn, project, exchange_id, "tokens")
    return None if row is None else codec.decode_tokens(row.blob, f"tokens of {exchange_id}")


def load_rule(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> str | None:
    """Name of the rule that decided about an exchange; None if there is none, or no such exchange."""
    query = sa.select(exchanges.c.rule).where(exchanges.c.project == project, exchanges.c.id == exchange_id)
    return conn.execute(query).scalar()


def keep_until(conn: sa.Connection, exchange_id: str, until: datetime, *, project: str = DEFAULT_PROJECT) -> None:
    """Keep an exchange at least so long: a hint to retention, which only ever grows."""
    column = exchanges.c.keep_until
    this = (exchanges.c.project == project, exchanges.c.id == exchange_id)
    conn.execute(sa.update(exchanges).where(*this, sa.or_(column.is_(None), column < until)).values(keep_until=until))


def erase_content(conn: sa.Connection, exchange_id: str, at: datetime, *, project: str = DEFAULT_PROJECT) -> int:
    """Destroy text, token ids and salt, what it was found by, and what the model said when it was asked again;
    returns how many parts there were. Evidence and results stay.

    Without the salt, the digests that remain can't be matched with any text, not even a guessed one.
    """
    count = 0
    for table, gone in ((contents, {"blob": None, "salt": None}), (retest_texts, {"blob": None})):
        its = (table.c.project == project, table.c.exchange_id == exchange_id, table.c.erased_at.is_(None))
        count += conn.execute(sa.update(table).where(*its).values(**gone, erased_at=at)).rowcount
    search.forget(conn, project, exchange_id)
    return count


def _load_row(conn: sa.Connection, exchange_id: str, project: str) -> sa.RowMapping:
    row = conn.execute(
        sa.select(exchanges).where(exchanges.c.project == project, exchanges.c.id == exchange_id)
    ).first()
    if row is None:
        raise NotFound(f"there is no exchange {exchange_id!r} in project {project!r}")
    return row._mapping


def _save_part(
    conn: sa.Connection, project: str, exchange_id: str, part: Part, blob: bytes, salt: bytes | None
) -> bool:
    row = {"project": project, "exchange_id": exchange_id, "part": part, "blob": blob, "salt": salt}
    return insert_new(conn, contents, row | {"created_at": utc_now()})


def _find_part(conn: sa.Connection, project: str, exchange_id: str, part: Part) -> sa.Row[Any] | None:
    return conn.execute(
        sa.select(contents).where(
            contents.c.project == project, contents.c.exchange_id == exchange_id, contents.c.part == part
        )
    ).first()


def _load_part(conn: sa.Connection, project: str, exchange_id: str) -> sa.Row[Any]:
    """The row that holds text and salt: present, and not erased."""
    row = _find_part(conn, project, exchange_id, "exchange")
    if row is None:
        raise NotFound(f"there is no content of an exchange {exchange_id!r} in project {project!r}")
    if row.erased_at is not None:
        raise NotFound(f"the content of exchange {exchange_id} was erased at {row.erased_at.isoformat()}")
    return row
