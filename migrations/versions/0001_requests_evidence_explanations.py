"""Requests, what they may be explained by, and why they came out as they did.

Revision 0001, the first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A revision is history: it spells its types out, so that a later change of tables.py can't change it.
ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("project", name="pk_projects"),
    )
    op.create_table(
        "exchanges",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("upstream_id", ID),
        sa.Column("trace_id", ID),
        sa.Column("span_id", ID),
        sa.Column("trace_sampled", sa.Boolean()),
        sa.Column("traceparent", sa.String()),
        sa.Column("tracestate", sa.String()),
        sa.Column("received_at", UTC, nullable=False),
        sa.Column("first_byte_s", sa.Double(), nullable=False),
        sa.Column("duration_s", sa.Double(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
        sa.Column("finish_reason", sa.String()),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("n_messages", sa.Integer(), nullable=False),
        sa.Column("capture_probability", sa.Double(), nullable=False),
        sa.Column("explain", sa.Boolean(), nullable=False),
        sa.Column("explain_why", sa.String(), nullable=False),
        sa.Column("explain_probability", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.project"], name="fk_exchanges_project"),
        sa.PrimaryKeyConstraint("project", "id", name="pk_exchanges"),
    )
    op.create_index("ix_exchanges_model_time", "exchanges", ["project", "model", "received_at"])
    op.create_index("ix_exchanges_time", "exchanges", ["project", "received_at"])
    op.create_index("ix_exchanges_trace_id", "exchanges", ["project", "trace_id"])
    op.create_index("ix_exchanges_upstream_id", "exchanges", ["project", "upstream_id"])
    op.create_table(
        "contents",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("part", sa.String(), nullable=False),
        sa.Column("salt", sa.LargeBinary()),
        sa.Column("blob", sa.LargeBinary()),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("erased_at", UTC),
        sa.CheckConstraint("part IN ('exchange', 'tokens')", name=op.f("ck_contents_part")),
        sa.CheckConstraint("(blob IS NULL) = (erased_at IS NOT NULL)", name=op.f("ck_contents_blob_or_erased")),
        sa.CheckConstraint("erased_at IS NULL OR salt IS NULL", name=op.f("ck_contents_salt_dies_with_blob")),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"],
            ["exchanges.project", "exchanges.id"],
            name="fk_contents_project_exchange_id",
        ),
        sa.PrimaryKeyConstraint("project", "exchange_id", "part", name="pk_contents"),
    )
    op.create_table(
        "explanations",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("exchange_id", ID),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_digest", sa.String(), nullable=False),
        sa.Column("spectrum", sa.LargeBinary(), nullable=False),
        sa.Column("n_players", sa.Integer(), nullable=False),
        sa.Column("n_terms", sa.Integer(), nullable=False),
        sa.Column("fidelity", sa.JSON(), nullable=False),
        sa.Column("r2", sa.Double()),
        sa.Column("r2_low", sa.Double()),
        sa.Column("r2_high", sa.Double()),
        sa.Column("how", sa.LargeBinary(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("verdict_reason", sa.String(), nullable=False),
        sa.Column("cost_masks", sa.BigInteger(), nullable=False),
        sa.Column("cost_prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_seconds", sa.Double(), nullable=False),
        sa.Column("trace_id", ID),
        sa.Column("span_id", ID),
        sa.Column("created_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"],
            ["exchanges.project", "exchanges.id"],
            name="fk_explanations_project_exchange_id",
        ),
        sa.ForeignKeyConstraint(["project"], ["projects.project"], name="fk_explanations_project"),
        sa.PrimaryKeyConstraint("project", "id", name="pk_explanations"),
    )
    op.create_index("ix_explanations_exchange_time", "explanations", ["project", "exchange_id", "created_at"])
    op.create_index("ix_explanations_time", "explanations", ["project", "created_at"])
    op.create_index("ix_explanations_trace_id", "explanations", ["project", "trace_id"])
    op.create_table(
        "games",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("exchange_id", ID),
        sa.Column("parent_game_id", ID),
        sa.Column("n_players", sa.Integer(), nullable=False),
        sa.Column("players", sa.JSON(), nullable=False),
        sa.Column("masker", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("scorer", sa.JSON(), nullable=False),
        sa.Column("scored_tokens", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"],
            ["exchanges.project", "exchanges.id"],
            name="fk_games_project_exchange_id",
        ),
        sa.ForeignKeyConstraint(
            ["project", "parent_game_id"],
            ["games.project", "games.id"],
            name="fk_games_project_parent_game_id",
        ),
        sa.ForeignKeyConstraint(["project"], ["projects.project"], name="fk_games_project"),
        sa.PrimaryKeyConstraint("project", "id", name="pk_games"),
        sa.UniqueConstraint("project", "exchange_id", "digest", name="uq_games_project_exchange_id_digest"),
    )
    op.create_index(
        "uq_games_free_digest",
        "games",
        ["project", "digest"],
        unique=True,
        sqlite_where=sa.text("exchange_id IS NULL"),
        postgresql_where=sa.text("exchange_id IS NULL"),
    )
    op.create_table(
        "evidence_blocks",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("game_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n_masks", sa.Integer(), nullable=False),
        sa.Column("n_players", sa.Integer(), nullable=False),
        sa.Column("n_tokens", sa.Integer(), nullable=False),
        sa.Column("masks", sa.LargeBinary(), nullable=False),
        sa.Column("replicates", sa.LargeBinary(), nullable=False),
        sa.Column("mask_values", sa.LargeBinary(), nullable=False),
        sa.Column("logprobs", sa.LargeBinary(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("probes_digest", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("asked_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "game_id"], ["games.project", "games.id"], name="fk_evidence_blocks_project_game_id"
        ),
        sa.PrimaryKeyConstraint("project", "game_id", "number", name="pk_evidence_blocks"),
    )
    op.create_table(
        "explanation_games",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("explanation_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("game_id", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "explanation_id"],
            ["explanations.project", "explanations.id"],
            name="fk_explanation_games_project_explanation_id",
        ),
        sa.ForeignKeyConstraint(
            ["project", "game_id"], ["games.project", "games.id"], name="fk_explanation_games_project_game_id"
        ),
        sa.PrimaryKeyConstraint("project", "explanation_id", "position", name="pk_explanation_games"),
    )
    op.create_index("ix_explanation_games_game_id", "explanation_games", ["project", "game_id"])
    op.create_table(
        "flags",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("explanation_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "explanation_id"],
            ["explanations.project", "explanations.id"],
            name="fk_flags_project_explanation_id",
        ),
        sa.PrimaryKeyConstraint("project", "explanation_id", "position", name="pk_flags"),
    )
    op.create_index("ix_flags_name", "flags", ["project", "name"])
    op.create_table(
        "interactions",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("explanation_id", ID, nullable=False),
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("players", sa.JSON(), nullable=False),
        sa.Column("fourier", sa.Double(), nullable=False),
        sa.Column("banzhaf", sa.Double(), nullable=False),
        sa.Column("moebius", sa.Double(), nullable=False),
        sa.Column("standard_error", sa.Double()),
        sa.ForeignKeyConstraint(
            ["project", "explanation_id"],
            ["explanations.project", "explanations.id"],
            name="fk_interactions_project_explanation_id",
        ),
        sa.PrimaryKeyConstraint("project", "explanation_id", "rank", name="pk_interactions"),
    )
    op.create_table(
        "outbox",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("traceparent", sa.String()),
        sa.Column("tracestate", sa.String()),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("explanation_id", ID),
        sa.Column("worker", sa.String()),
        sa.Column("heartbeat_at", UTC),
        sa.Column("retry_at", UTC),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("started_at", UTC),
        sa.Column("finished_at", UTC),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name=op.f("ck_outbox_state")
        ),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"],
            ["exchanges.project", "exchanges.id"],
            name="fk_outbox_project_exchange_id",
        ),
        sa.ForeignKeyConstraint(
            ["project", "explanation_id"],
            ["explanations.project", "explanations.id"],
            name="fk_outbox_project_explanation_id",
        ),
        sa.PrimaryKeyConstraint("project", "id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_exchange", "outbox", ["project", "exchange_id"])
    op.create_index("ix_outbox_queue", "outbox", ["state", "priority", "created_at", "id"])


def downgrade() -> None:
    for table in (
        "outbox",
        "interactions",
        "flags",
        "explanation_games",
        "evidence_blocks",
        "games",
        "explanations",
        "contents",
        "exchanges",
        "projects",
    ):
        op.drop_table(table)
