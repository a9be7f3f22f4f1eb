"""The tables: what the store remembers, and what may be forgotten.

Rules that hold for every table, from the first migration on:

- `project` is the tenant, NOT NULL, and the first column of every key (but of `workers`, who serve all tenants).
- Text and token ids live in `contents` and nowhere else, so that destroying a person's content is
  one UPDATE. Everything beside it (ranges, masks, values, spectra) stays loadable afterwards.
- Times are timezone-aware UTC; durations are seconds; probabilities lie in [0, 1].
- JSON columns hold small things that a person may want to read in SQL; arrays are BLOBs (codec.py).
  Plain JSON, not JSONB: it keeps text exactly, and JSONB refuses some strings that clients do send.
- NaN never enters a float column (SQLite would turn it into NULL).

The same definitions serve SQLite and PostgreSQL; `migrations/` must produce exactly this.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

DEFAULT_PROJECT = "default"

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}

metadata = sa.MetaData(naming_convention=NAMING)

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Text(sa.types.TypeDecorator[str]):
    """Text for people and for searching. Code points that a database refuses (NUL, half a surrogate pair;
    both come in through JSON) are replaced by U+FFFD: a strange error message must not be what keeps a
    failed job from being recorded. Content is kept exactly, but it is packed."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: sa.Dialect) -> str | None:
        return None if value is None else _UNSTORABLE.sub("\ufffd", value)


class Id(Text):
    """Compared by byte on both databases, so that a prefix is a range of the index (lookup.find)."""

    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[str]:
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(sa.String(collation=collation))


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A moment. Naive datetimes are refused; what comes back is always in UTC.

    SQLite keeps text of fixed width without a zone, which sorts as time does.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the store takes no time without a zone: {value!r}")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, _dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    """This machine's clock, in UTC."""
    return datetime.now(UTC)


def _project() -> sa.Column[str]:
    return sa.Column("project", Id, primary_key=True, nullable=False, server_default=DEFAULT_PROJECT)


def _in_project() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["project"], ["projects.project"])


def _of(parent: str, column: str) -> sa.ForeignKeyConstraint:
    """(project, column) names a row of `parent`; no check where `column` is NULL."""
    return sa.ForeignKeyConstraint(["project", column], [f"{parent}.project", f"{parent}.id"])


def _required(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _counter(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False, server_default="0")


projects = sa.Table("projects", metadata, _project(), _required("created_at", UtcDateTime))

exchanges = sa.Table(
    "exchanges",
    metadata,
    _project(),
    sa.Column("id", Id, primary_key=True),
    _required("kind", Text),
    _required("model", Text),
    sa.Column("upstream_id", Id),  # vLLM's response id; a client can choose it, hence not unique
    sa.Column("trace_id", Id),  # of our request span; one trace may hold many exchanges
    sa.Column("span_id", Id),
    sa.Column("trace_sampled", sa.Boolean()),
    sa.Column("traceparent", Text),  # as the caller sent it
    sa.Column("tracestate", Text),
    _required("received_at", UtcDateTime),
    _required("first_byte_s", sa.Double()),
    _required("duration_s", sa.Double()),
    sa.Column("prompt_tokens", sa.BigInteger()),
    sa.Column("output_tokens", sa.BigInteger()),
    sa.Column("finish_reason", Text),
    _required("streamed", sa.Boolean()),
    _required("n_messages", sa.Integer()),
    _required("capture_probability", sa.Double()),
    _required("explain", sa.Boolean()),  # whether it was chosen to be explained, ...
    _required("explain_why", Text),  # ... why or why not, ...
    _required("explain_probability", sa.Double()),  # ... and how probable the choice was
    _in_project(),
    sa.Index("ix_exchanges_time", "project", "received_at"),
    sa.Index("ix_exchanges_model_time", "project", "model", "received_at"),
    sa.Index("ix_exchanges_upstream_id", "project", "upstream_id"),
    sa.Index("ix_exchanges_trace_id", "project", "trace_id"),
)

contents = sa.Table(
    "contents",
    metadata,
    _project(),
    sa.Column("exchange_id", Id, primary_key=True),
    sa.Column("part", Text, primary_key=True),
    sa.Column("salt", sa.LargeBinary()),  # part `exchange` only: 32 bytes that key every digest of content
    sa.Column("blob", sa.LargeBinary()),
    _required("created_at", UtcDateTime),
    sa.Column("erased_at", UtcDateTime),
    _of("exchanges", "exchange_id"),
    sa.CheckConstraint("part IN ('exchange', 'tokens')", name="part"),
    sa.CheckConstraint("(blob IS NULL) = (erased_at IS NOT NULL)", name="blob_or_erased"),
    sa.CheckConstraint("erased_at IS NULL OR salt IS NULL", name="salt_dies_with_blob"),
)

games = sa.Table(
    "games",
    metadata,
    _project(),
    sa.Column("id", Id, primary_key=True),
    _required("kind", Text),
    sa.Column("exchange_id", Id),
    sa.Column("parent_game_id", Id),
    _required("n_players", sa.Integer()),
    _required("players", sa.JSON()),  # ranges, never text
    _required("masker", Text),
    _required("value", Text),
    _required("scorer", sa.JSON()),
    _required("scored_tokens", sa.JSON()),  # the target as a range of the output, never ids
    _required("digest", Text),
    _required("created_at", UtcDateTime),
    _in_project(),
    _of("exchanges", "exchange_id"),
    _of("games", "parent_game_id"),
    sa.UniqueConstraint("project", "exchange_id", "digest"),
    # NULLs differ in a unique constraint: games without an exchange need one of their own
    sa.Index(
        "uq_games_free_digest",
        "project",
        "digest",
        unique=True,
        sqlite_where=sa.text("exchange_id IS NULL"),
        postgresql_where=sa.text("exchange_id IS NULL"),
    ),
)

evidence_blocks = sa.Table(
    "evidence_blocks",
    metadata,
    _project(),
    sa.Column("game_id", Id, primary_key=True),
    sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
    _required("n_masks", sa.Integer()),  # m
    _required("n_players", sa.Integer()),  # n
    _required("n_tokens", sa.Integer()),  # k
    _required("masks", sa.LargeBinary()),  # m rows of ceil(n/8) bytes, numpy.packbits
    _required("replicates", sa.LargeBinary()),  # m int64, little-endian
    _required("mask_values", sa.LargeBinary()),  # m float64, little-endian
    _required("logprobs", sa.LargeBinary()),  # m rows of k float32, little-endian
    _required("prompt_tokens", sa.BigInteger()),
    _required("cached_tokens", sa.BigInteger()),
    _required("seconds", sa.Double()),
    _required("probes_digest", Text),
    _required("digest", Text),
    _required("asked_at", UtcDateTime),
    _of("games", "game_id"),
)

explanations = sa.Table(
    "explanations",
    metadata,
    _project(),
    sa.Column("id", Id, primary_key=True),
    sa.Column("exchange_id", Id),
    _required("target", sa.JSON()),
    _required("method", Text),
    _required("recipe", sa.JSON()),
    _required("recipe_digest", Text),
    _required("spectrum", sa.LargeBinary()),
    _required("n_players", sa.Integer()),
    _required("n_terms", sa.Integer()),
    _required("fidelity", sa.JSON()),  # the truth; the three r2 columns are for searching, NULL if not finite
    sa.Column("r2", sa.Double()),
    sa.Column("r2_low", sa.Double()),
    sa.Column("r2_high", sa.Double()),
    _required("how", sa.LargeBinary()),
    _required("verdict", Text),
    _required("verdict_reason", Text),
    _required("cost_masks", sa.BigInteger()),
    _required("cost_prompt_tokens", sa.BigInteger()),
    _required("cost_cached_tokens", sa.BigInteger()),
    _required("cost_seconds", sa.Double()),
    sa.Column("trace_id", Id),  # of the job's own trace
    sa.Column("span_id", Id),
    _required("created_at", UtcDateTime),
    _in_project(),
    _of("exchanges", "exchange_id"),
    sa.Index("ix_explanations_time", "project", "created_at"),
    sa.Index("ix_explanations_exchange_time", "project", "exchange_id", "created_at"),
    sa.Index("ix_explanations_trace_id", "project", "trace_id"),
)

explanation_games = sa.Table(
    "explanation_games",
    metadata,
    _project(),
    sa.Column("explanation_id", Id, primary_key=True),
    sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
    _required("game_id", Id),
    _of("explanations", "explanation_id"),
    _of("games", "game_id"),
    sa.Index("ix_explanation_games_game_id", "project", "game_id"),
)

interactions = sa.Table(
    "interactions",
    metadata,
    _project(),
    sa.Column("explanation_id", Id, primary_key=True),
    sa.Column("rank", sa.Integer(), primary_key=True, autoincrement=False),
    _required("size", sa.Integer()),  # how many players act together; `order` is a word of SQL
    _required("players", sa.JSON()),
    _required("fourier", sa.Double()),
    _required("banzhaf", sa.Double()),
    _required("moebius", sa.Double()),
    sa.Column("standard_error", sa.Double()),
    _of("explanations", "explanation_id"),
)

flags = sa.Table(
    "flags",
    metadata,
    _project(),
    sa.Column("explanation_id", Id, primary_key=True),
    sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
    _required("name", Text),
    _required("detail", Text),
    _of("explanations", "explanation_id"),
    sa.Index("ix_flags_name", "project", "name"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    _project(),
    sa.Column("id", Id, primary_key=True),
    _required("exchange_id", Id),
    _required("recipe", sa.JSON()),
    sa.Column("traceparent", Text),  # of the request's span: the job's span is linked to it
    sa.Column("tracestate", Text),
    _required("priority", sa.Integer()),  # 1 is the most urgent
    _required("why", Text),
    _required("state", Text),
    _required("attempts", sa.Integer()),  # also the fence: a claim is (id, attempts)
    sa.Column("reason", Text),  # of the last failure
    sa.Column("explanation_id", Id),
    sa.Column("worker", Text),
    sa.Column("retry_at", UtcDateTime),  # a queued job is left alone until then
    _required("created_at", UtcDateTime),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    _counter("dispatch"),  # how often it came back to the queue; the runner is given (id, dispatch)
    sa.Column("dispatched_at", UtcDateTime),  # when the runner was given it; NULL: it has not been yet
    _counter("failures"),
    _counter("takeovers"),
    _of("exchanges", "exchange_id"),
    _of("explanations", "explanation_id"),
    sa.CheckConstraint("state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled')", name="state"),
    sa.Index("ix_outbox_queue", "state", "priority", "created_at", "id"),
    sa.Index("ix_outbox_exchange", "project", "exchange_id"),
)

pauses = sa.Table(
    "pauses",
    metadata,
    _project(),
    _required("paused_at", UtcDateTime),
    _in_project(),
)
"""A row says that the queue of its project is paused."""

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", Id, primary_key=True),
    _required("host", Text),
    _required("pid", sa.BigInteger()),
    _required("concurrency", sa.Integer()),
    _required("started_at", UtcDateTime),
    _required("seen_at", UtcDateTime),  # by the database's clock
    sa.Index("ix_workers_seen", "seen_at"),
)
"""Heartbeats. The one table without a project: a worker works for all of them."""
