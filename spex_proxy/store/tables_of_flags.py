"""The tables of flags: what a person should look at, who says so, and whom to tell."""

from __future__ import annotations

import sqlalchemy as sa

from spex_proxy.store.columns import Id, Text, UtcDateTime, in_project, metadata, of, project_column, required

flags = sa.Table(
    "flags",
    metadata,
    project_column(),
    sa.Column("id", Id, primary_key=True),  # made from what it is about and who raised it: raised again, it is the same
    sa.Column("exchange_id", Id),  # also of a flag on an explanation, if that is of an exchange
    sa.Column("explanation_id", Id),  # NULL: the exchange itself was flagged
    required("position", sa.Integer()),  # among those that were raised together
    required("flagger", Text),  # name of a plugin; `verdict`, `target`; `feedback`; a guardrail's own name
    required("version", Text),  # `distribution version` of the plugin; empty if nobody said
    required("name", Text),
    required("detail", Text),  # ours quotes no content; a person's comment is theirs
    sa.Column("score", sa.Double()),
    sa.Column("who", Text),  # whoever sent it, by their own account; NULL for our own
    required("raised_at", UtcDateTime),
    in_project(),
    of("exchanges", "exchange_id"),
    of("explanations", "explanation_id"),
    sa.CheckConstraint("exchange_id IS NOT NULL OR explanation_id IS NOT NULL", name="of_something"),
    sa.Index("ix_flags_time", "project", "raised_at"),
    sa.Index("ix_flags_name_time", "project", "name", "raised_at"),
    sa.Index("ix_flags_exchange", "project", "exchange_id", "raised_at"),
    sa.Index("ix_flags_explanation", "project", "explanation_id", "position"),
)
"""Flags on exchanges and on explanations. Rows are added, never changed."""

webhooks = sa.Table(
    "webhooks",
    metadata,
    project_column(),
    sa.Column("id", Id, primary_key=True),  # made from rule, exchange and flag: each is told once
    required("url", Text),
    required("rule", Text),
    sa.Column("rules_digest", Text),
    required("exchange_id", Id),
    sa.Column("explanation_id", Id),
    required("flags", sa.JSON()),  # their names
    required("state", Text),
    required("tries", sa.Integer()),
    sa.Column("reason", Text),  # of the last failure
    required("due_at", UtcDateTime),  # by the database's clock; of a row that is being sent: when its sender is late
    required("created_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    of("exchanges", "exchange_id"),
    of("explanations", "explanation_id"),
    sa.CheckConstraint("state IN ('due', 'sent', 'failed')", name="state"),
    sa.Index("ix_webhooks_due", "state", "due_at"),
    sa.Index("ix_webhooks_exchange", "project", "exchange_id"),
)
"""Whom a rule tells, and whether they have been told."""
