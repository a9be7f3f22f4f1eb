"""The tables of review: what a person should judge, and what was said."""

from __future__ import annotations

import sqlalchemy as sa

from spex_proxy.store.columns import Id, Text, UtcDateTime, metadata, of, project_column, required

cases = sa.Table(
    "cases",
    metadata,
    project_column(),
    sa.Column("id", Id, primary_key=True),
    required("queue", Id),
    required("exchange_id", Id),
    sa.Column("explanation_id", Id),
    required("why", Text),
    required("priority", sa.Integer()),  # 1 is the most urgent
    required("state", Text),
    required("created_at", UtcDateTime),
    sa.Column("holder", Text),
    sa.Column("held_until", UtcDateTime),
    sa.Column("label", Text),
    sa.Column("closed_at", UtcDateTime),
    required("events", sa.Integer()),  # lines of its history; also the fence: who changes it read this number
    of("exchanges", "exchange_id"),
    of("explanations", "explanation_id"),
    sa.UniqueConstraint("project", "queue", "exchange_id"),
    sa.CheckConstraint("state IN ('open', 'claimed', 'done')", name="state"),
    sa.Index("ix_cases_queue", "project", "queue", "state", "priority", "created_at", "id"),
    sa.Index("ix_cases_exchange", "project", "exchange_id"),
)
"""What waits for a person's judgement: an exchange is in a queue once."""

case_events = sa.Table(
    "case_events",
    metadata,
    project_column(),
    sa.Column("case_id", Id, primary_key=True),
    sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
    required("at", UtcDateTime),
    required("who", Text),
    required("act", Text),
    sa.Column("label", Text),
    sa.Column("note", Text),
    of("cases", "case_id"),
)
"""A case's history: rows are added, never changed."""
