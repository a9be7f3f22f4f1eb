"""The tables of explaining as work: jobs, sampling rules and how much of them is used, workers."""

from __future__ import annotations

import sqlalchemy as sa

from spex_proxy.store.columns import Id, Text, UtcDateTime, counter, in_project, metadata, of, project_column, required

outbox = sa.Table(
    "outbox",
    metadata,
    project_column(),
    sa.Column("id", Id, primary_key=True),
    required("exchange_id", Id),
    required("recipe", sa.JSON()),
    sa.Column("traceparent", Text),  # of the request's span: the job's span is linked to it
    sa.Column("tracestate", Text),
    required("priority", sa.Integer()),  # 1 is the most urgent
    required("why", Text),
    required("state", Text),
    required("attempts", sa.Integer()),  # also the fence: a claim is (id, attempts)
    sa.Column("reason", Text),  # of the last failure
    sa.Column("explanation_id", Id),
    sa.Column("worker", Text),
    sa.Column("retry_at", UtcDateTime),  # a queued job is left alone until then
    required("created_at", UtcDateTime),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    counter("dispatch"),  # how often it came back to the queue; the runner is given (id, dispatch)
    sa.Column("dispatched_at", UtcDateTime),  # when the runner was given it; NULL: it has not been yet
    counter("failures"),
    counter("takeovers"),
    sa.Column("r2_so_far", sa.Double()),  # of the rounds that are answered, while there is no explanation
    sa.Column("kind", Text, nullable=False, server_default="explain"),  # explain, retest, table or share
    sa.Column("task", sa.JSON()),  # ids and numbers of what a retest or a table is about; no content
    of("exchanges", "exchange_id"),
    of("explanations", "explanation_id"),
    sa.CheckConstraint("state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled')", name="state"),
    sa.Index("ix_outbox_queue", "state", "priority", "created_at", "id"),
    sa.Index("ix_outbox_exchange", "project", "exchange_id"),
)

rule_books = sa.Table(
    "rule_books",
    metadata,
    project_column(),
    sa.Column("digest", Id, primary_key=True),
    required("text", Text),  # the file as it was read
    required("settings", sa.JSON()),  # the rule of the settings, which holds where none of the file fits
    required("loaded_at", UtcDateTime),
    in_project(),
)
"""Every version of the sampling rules that was in force."""

rule_uses = sa.Table(
    "rule_uses",
    metadata,
    project_column(),
    sa.Column("rule", Id, primary_key=True),
    sa.Column("period", Text, primary_key=True),  # minute or day
    sa.Column("starts_at", UtcDateTime, primary_key=True),
    required("used", sa.Integer()),
    in_project(),
)
"""How many jobs a rule with a cap has begun. Counted here, so that all processes share one cap."""

pauses = sa.Table(
    "pauses",
    metadata,
    project_column(),
    required("paused_at", UtcDateTime),
    in_project(),
)
"""A row says that the queue of its project is paused."""

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", Id, primary_key=True),
    required("host", Text),
    required("pid", sa.BigInteger()),
    required("concurrency", sa.Integer()),
    required("started_at", UtcDateTime),
    required("seen_at", UtcDateTime),  # by the database's clock
    sa.Index("ix_workers_seen", "seen_at"),
)
"""Heartbeats. The one table without a project: a worker works for all of them."""
