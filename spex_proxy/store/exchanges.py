"""Captured requests: metadata in `exchanges`, text and token ids in `contents`."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.exchange import Exchange, TokenizedExchange, TraceRef
from spex_proxy.store import codec
from spex_proxy.store.columns import DEFAULT_PROJECT, utc_now
from spex_proxy.store.rows import get_or_create_project, insert_new
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


def save_captured(
    conn: sa.Connection,
    exchange: Exchange,
    *,
    trace: TraceRef | None,
    traceparent: str | None,
    tracestate: str | None,
    explain: bool,
    why: str,
    explain_probability: float,
    rule: str | None = None,
    rules_digest: str | None = None,
) -> bool:
    """Keep an exchange and its content, under a fresh salt.

    `trace` is our request span; `traceparent` and `tracestate` are the caller's headers; `rule`, of the
    version `rules_digest`, decided about `explain`.
    Returns False, changing nothing, if the id is known: whoever is unsure whether an earlier
    attempt was committed may simply try again.
    """
    get_or_create_project(conn, exchange.project)
    row = {name: getattr(exchange, name) for name in _METADATA} | {
        "n_messages": sum(text.kind == "text" and text.part in (None, 1) for text in exchange.messages),
        "trace_id": trace.trace_id if trace else None,
        "span_id": trace.span_id if trace else None,
        "trace_sampled": trace.is_sampled if trace else None,
        "traceparent": traceparent,
        "tracestate": tracestate,
        "explain": explain,
        "explain_why": why,
        "explain_probability": explain_probability,
        "rule": rule,
        "rules_digest": rules_digest,
    }
    if not insert_new(conn, exchanges, row):
        return False
    blob = codec.encode_content(exchange)
    _save_part(conn, exchange.project, exchange.id, "exchange", blob, secrets.token_bytes(SALT_BYTES))
    return True


def is_known(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> bool:
    """Whether an exchange of this id was saved."""
    this = (exchanges.c.project == project, exchanges.c.id == exchange_id)
    return conn.scalar(sa.select(exchanges.c.id).where(*this)) is not None


def load_exchange(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> Exchange:
    """The exchange, equal to what was saved. Raises NotFound, also if its content was erased."""
    row = _load_row(conn, exchange_id, project)
    content = codec.decode_content(_load_part(conn, project, exchange_id).blob, f"content of {exchange_id}")
    return Exchange(**{name: row[name] for name in _METADATA}, **content)


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


def erase_content(conn: sa.Connection, exchange_id: str, at: datetime, *, project: str = DEFAULT_PROJECT) -> int:
    """Destroy text, token ids and salt, and what the model said when it was asked again; returns how many parts
    there were. Evidence and results stay.

    Without the salt, the digests that remain can't be matched with any text, not even a guessed one.
    """
    count = 0
    for table, gone in ((contents, {"blob": None, "salt": None}), (retest_texts, {"blob": None})):
        its = (table.c.project == project, table.c.exchange_id == exchange_id, table.c.erased_at.is_(None))
        count += conn.execute(sa.update(table).where(*its).values(**gone, erased_at=at)).rowcount
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
