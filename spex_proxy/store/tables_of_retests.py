"""The tables of re-tests: the model asked again without some segments."""

from __future__ import annotations

import sqlalchemy as sa

from spex_proxy.store.columns import Id, Text, UtcDateTime, metadata, of, project_column, required

retests = sa.Table(
    "retests",
    metadata,
    project_column(),
    sa.Column("id", Id, primary_key=True),
    required("exchange_id", Id),
    required("explanation_id", Id),
    required("job_id", Id),  # its state is the re-test's
    required("players", sa.JSON()),  # what was taken out, from 0
    required("who", Text),
    required("created_at", UtcDateTime),
    sa.Column("answered_at", UtcDateTime),
    sa.Column("outcome", sa.JSON()),  # numbers and words of ours; what was said is in retest_texts
    of("exchanges", "exchange_id"),
    of("explanations", "explanation_id"),
    of("outbox", "job_id"),
    sa.CheckConstraint("(outcome IS NULL) = (answered_at IS NULL)", name="outcome_when_answered"),
    sa.Index("ix_retests_exchange", "project", "exchange_id", "created_at", "id"),
)

retest_texts = sa.Table(
    "retest_texts",
    metadata,
    project_column(),
    sa.Column("retest_id", Id, primary_key=True),
    required("exchange_id", Id),  # whose content it is, and with which it is erased
    sa.Column("blob", sa.LargeBinary()),
    required("created_at", UtcDateTime),
    sa.Column("erased_at", UtcDateTime),
    of("retests", "retest_id"),
    of("exchanges", "exchange_id"),
    sa.CheckConstraint("(blob IS NULL) = (erased_at IS NOT NULL)", name="blob_or_erased"),
    sa.Index("ix_retest_texts_exchange", "project", "exchange_id"),
)
"""What the model said: content, like `contents`."""
