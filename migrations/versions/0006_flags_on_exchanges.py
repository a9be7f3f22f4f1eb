"""Flags on exchanges too, with who raised them; what rules do about them.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("exchanges", sa.Column("keep_until", UTC))
    op.execute("CREATE TABLE old_flags AS SELECT * FROM flags")
    op.drop_table("flags")
    op.create_table(
        "flags",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("exchange_id", ID),
        sa.Column("explanation_id", ID),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("flagger", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("score", sa.Double()),
        sa.Column("who", sa.String()),
        sa.Column("raised_at", UTC, nullable=False),
        sa.CheckConstraint("exchange_id IS NOT NULL OR explanation_id IS NOT NULL", name=op.f("ck_flags_of_something")),
        sa.ForeignKeyConstraint(["project"], ["projects.project"], name="fk_flags_project"),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"], ["exchanges.project", "exchanges.id"], name="fk_flags_project_exchange_id"
        ),
        sa.ForeignKeyConstraint(
            ["project", "explanation_id"],
            ["explanations.project", "explanations.id"],
            name="fk_flags_project_explanation_id",
        ),
        sa.PrimaryKeyConstraint("project", "id", name="pk_flags"),
    )
    op.create_index("ix_flags_time", "flags", ["project", "raised_at"])
    op.create_index("ix_flags_name_time", "flags", ["project", "name", "raised_at"])
    op.create_index("ix_flags_exchange", "flags", ["project", "exchange_id", "raised_at"])
    op.create_index("ix_flags_explanation", "flags", ["project", "explanation_id", "position"])
    op.execute(
        "INSERT INTO flags (project, id, exchange_id, explanation_id, position, flagger, version, name, detail, "
        "raised_at) SELECT f.project, e.id || ':' || f.position, e.exchange_id, e.id, f.position, "
        "CASE f.name WHEN 'output_cut' THEN 'target' ELSE 'verdict' END, '', f.name, f.detail, e.created_at "
        "FROM old_flags f JOIN explanations e ON e.project = f.project AND e.id = f.explanation_id"
    )
    op.drop_table("old_flags")
    op.create_table(
        "webhooks",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("rules_digest", sa.String()),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("explanation_id", ID),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("due_at", UTC, nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("finished_at", UTC),
        sa.CheckConstraint("state IN ('due', 'sent', 'failed')", name=op.f("ck_webhooks_state")),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"], ["exchanges.project", "exchanges.id"], name="fk_webhooks_project_exchange_id"
        ),
        sa.ForeignKeyConstraint(
            ["project", "explanation_id"],
            ["explanations.project", "explanations.id"],
            name="fk_webhooks_project_explanation_id",
        ),
        sa.PrimaryKeyConstraint("project", "id", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_due", "webhooks", ["state", "due_at"])
    op.create_index("ix_webhooks_exchange", "webhooks", ["project", "exchange_id"])


def downgrade() -> None:
    op.drop_table("webhooks")
    op.execute("CREATE TABLE new_flags AS SELECT * FROM flags WHERE explanation_id IS NOT NULL")
    op.drop_table("flags")
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
    op.execute(
        "INSERT INTO flags (project, explanation_id, position, name, detail) "
        "SELECT project, explanation_id, position, name, detail FROM new_flags WHERE who IS NULL"
    )
    op.drop_table("new_flags")
    op.drop_column("exchanges", "keep_until")
