"""The tables: what the store remembers, and what may be forgotten.

Rules that hold for every table, from the first migration on:

- `project` is the tenant, NOT NULL, and the first column of every key (but of `workers`, who serve all tenants).
- Text and token ids live in `contents` and nowhere else, but for the words to search by (tables_of_search):
  destroying a person's content is one function. Everything beside it (ranges, masks, values, spectra) stays
  loadable afterwards.
- Times are timezone-aware UTC; durations are seconds; probabilities lie in [0, 1].
- JSON columns hold small things that a person may want to read in SQL; arrays are BLOBs (codec.py).
  Plain JSON, not JSONB: it keeps text exactly, and JSONB refuses some strings that clients do send.
- NaN never enters a float column (SQLite would turn it into NULL).

The same definitions serve SQLite and PostgreSQL; `migrations/` must produce exactly this.
"""

from __future__ import annotations

import sqlalchemy as sa

from spex_proxy.store.columns import Id, Text, UtcDateTime, counter, in_project, metadata, of, project_column, required
from spex_proxy.store.tables_of_flags import flags, webhooks
from spex_proxy.store.tables_of_jobs import outbox, pauses, rule_books, rule_uses, workers
from spex_proxy.store.tables_of_retests import retest_texts, retests
from spex_proxy.store.tables_of_review import case_events, cases
from spex_proxy.store.tables_of_search import marks, texts

__all__ = [
    "case_events", "cases", "contents", "evidence_blocks", "exchanges", "explanation_games", "explanations", "flags",
    "games", "interactions", "marks", "metadata", "outbox", "pauses", "projects", "retest_texts", "retests",
    "rule_books", "rule_uses", "texts", "webhooks", "workers",
]  # fmt: skip

projects = sa.Table("projects", metadata, project_column(), required("created_at", UtcDateTime))

exchanges = sa.Table(
    "exchanges",
    metadata,
    project_column(),
    sa.Column("id", Id, primary_key=True),
    required("kind", Text),
    required("model", Text),
    sa.Column("upstream_id", Id),  # vLLM's response id; a client can choose it, hence not unique
    sa.Column("trace_id", Id),  # of our request span; one trace may hold many exchanges
    sa.Column("span_id", Id),
    sa.Column("trace_sampled", sa.Boolean()),
    sa.Column("traceparent", Text),  # as the caller sent it
    sa.Column("tracestate", Text),
    required("received_at", UtcDateTime),
    required("first_byte_s", sa.Double()),
    required("duration_s", sa.Double()),
    sa.Column("prompt_tokens", sa.BigInteger()),
    sa.Column("output_tokens", sa.BigInteger()),
    sa.Column("finish_reason", Text),
    required("streamed", sa.Boolean()),
    required("n_messages", sa.Integer()),
    required("capture_probability", sa.Double()),
    required("explain", sa.Boolean()),  # whether it was chosen to be explained, ...
    required("explain_why", Text),  # ... why or why not, ...
    required("explain_probability", sa.Double()),  # ... and how probable the choice was, caps aside
    sa.Column("rule", Text),  # the sampling rule that decided, ...
    sa.Column("rules_digest", Text),  # ... and the version of the rules that it is of
    sa.Column("keep_until", UtcDateTime),  # a rule wants it kept at least so long; retention looks at it
    in_project(),
    sa.Index("ix_exchanges_time", "project", "received_at"),
    sa.Index("ix_exchanges_model_time", "project", "model", "received_at"),
    sa.Index("ix_exchanges_rule_time", "project", "rule", "received_at"),
    sa.Index(
        "ix_exchanges_chosen",  # those that the draw chose: how often a cap said no (aggregates weigh by it)
        "project",
        "explain_why",
        "received_at",
        "rule",
        sqlite_where=sa.text("explain_why IN ('sampled', 'capped')"),
        postgresql_where=sa.text("explain_why IN ('sampled', 'capped')"),
    ),
    sa.Index("ix_exchanges_upstream_id", "project", "upstream_id"),
    sa.Index("ix_exchanges_trace_id", "project", "trace_id"),
)

contents = sa.Table(
    "contents",
    metadata,
    project_column(),
    sa.Column("exchange_id", Id, primary_key=True),
    sa.Column("part", Text, primary_key=True),
    sa.Column("salt", sa.LargeBinary()),  # part `exchange` only: 32 bytes that key every digest of content
    sa.Column("blob", sa.LargeBinary()),
    required("created_at", UtcDateTime),
    sa.Column("erased_at", UtcDateTime),
    of("exchanges", "exchange_id"),
    sa.CheckConstraint("part IN ('exchange', 'tokens')", name="part"),
    sa.CheckConstraint("(blob IS NULL) = (erased_at IS NOT NULL)", name="blob_or_erased"),
    sa.CheckConstraint("erased_at IS NULL OR salt IS NULL", name="salt_dies_with_blob"),
)

games = sa.Table(
    "games",
    metadata,
    project_column(),
    sa.Column("id", Id, primary_key=True),
    required("kind", Text),
    sa.Column("exchange_id", Id),
    sa.Column("parent_game_id", Id),
    required("n_players", sa.Integer()),
    required("players", sa.JSON()),  # ranges, never text
    required("masker", Text),
    required("value", Text),
    required("scorer", sa.JSON()),
    required("scored_tokens", sa.JSON()),  # the target as a range of the output, never ids
    required("digest", Text),
    required("created_at", UtcDateTime),
    in_project(),
    of("exchanges", "exchange_id"),
    of("games", "parent_game_id"),
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
    project_column(),
    sa.Column("game_id", Id, primary_key=True),
    sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
    required("n_masks", sa.Integer()),  # m
    required("n_players", sa.Integer()),  # n
    required("n_tokens", sa.Integer()),  # k
    required("masks", sa.LargeBinary()),  # m rows of ceil(n/8) bytes, numpy.packbits
    required("replicates", sa.LargeBinary()),  # m int64, little-endian
    required("mask_values", sa.LargeBinary()),  # m float64, little-endian
    required("logprobs", sa.LargeBinary()),  # m rows of k float32, little-endian
    required("prompt_tokens", sa.BigInteger()),
    required("cached_tokens", sa.BigInteger()),
    required("seconds", sa.Double()),
    required("probes_digest", Text),
    required("digest", Text),
    required("asked_at", UtcDateTime),
    of("games", "game_id"),
    sa.Index("ix_evidence_blocks_time", "project", "asked_at"),
)

explanations = sa.Table(
    "explanations",
    metadata,
    project_column(),
    sa.Column("id", Id, primary_key=True),
    sa.Column("exchange_id", Id),
    required("target", sa.JSON()),
    required("method", Text),
    required("recipe", sa.JSON()),
    required("recipe_digest", Text),
    required("spectrum", sa.LargeBinary()),
    required("n_players", sa.Integer()),
    required("n_terms", sa.Integer()),
    required("fidelity", sa.JSON()),  # the truth; the three r2 columns are for searching, NULL if not finite
    sa.Column("r2", sa.Double()),
    sa.Column("r2_low", sa.Double()),
    sa.Column("r2_high", sa.Double()),
    required("how", sa.LargeBinary()),
    required("verdict", Text),
    required("verdict_reason", Text),
    required("cost_masks", sa.BigInteger()),
    required("cost_prompt_tokens", sa.BigInteger()),
    required("cost_cached_tokens", sa.BigInteger()),
    required("cost_seconds", sa.Double()),
    sa.Column("trace_id", Id),  # of the job's own trace
    sa.Column("span_id", Id),
    required("created_at", UtcDateTime),
    in_project(),
    of("exchanges", "exchange_id"),
    sa.Index("ix_explanations_time", "project", "created_at"),
    sa.Index("ix_explanations_verdict_time", "project", "verdict", "created_at"),
    sa.Index("ix_explanations_exchange_time", "project", "exchange_id", "created_at"),
    sa.Index("ix_explanations_trace_id", "project", "trace_id"),
)

explanation_games = sa.Table(
    "explanation_games",
    metadata,
    project_column(),
    sa.Column("explanation_id", Id, primary_key=True),
    sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
    required("game_id", Id),
    of("explanations", "explanation_id"),
    of("games", "game_id"),
    sa.Index("ix_explanation_games_game_id", "project", "game_id"),
)

interactions = sa.Table(
    "interactions",
    metadata,
    project_column(),
    sa.Column("explanation_id", Id, primary_key=True),
    sa.Column("rank", sa.Integer(), primary_key=True, autoincrement=False),
    required("size", sa.Integer()),  # how many players act together; `order` is a word of SQL
    required("players", sa.JSON()),
    required("fourier", sa.Double()),
    required("banzhaf", sa.Double()),
    required("moebius", sa.Double()),
    sa.Column("standard_error", sa.Double()),
    counter("origins"),  # of its players, as bits (facts.origins); 0 where it is not known
    of("explanations", "explanation_id"),
)
