"""Cases for review, and their history.

Revision 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "cases",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("queue", ID, nullable=False),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("explanation_id", ID),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("holder", sa.String()),
        sa.Column("held_until", UTC),
        sa.Column("label", sa.String()),
        sa.Column("closed_at", UTC),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'claimed', 'done')", name=op.f("ck_cases_state")),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"], ["exchanges.project", "exchanges.id"], name="fk_cases_project_exchange_id"
        ),
        sa.ForeignKeyConstraint(
            ["project", "explanation_id"],
            ["explanations.project", "explanations.id"],
            name="fk_cases_project_explanation_id",
        ),
        sa.PrimaryKeyConstraint("project", "id", name="pk_cases"),
        sa.UniqueConstraint("project", "queue", "exchange_id", name="uq_cases_project_queue_exchange_id"),
    )
    op.create_index("ix_cases_queue", "cases", ["project", "queue", "state", "priority", "created_at", "id"])
    op.create_index("ix_cases_exchange", "cases", ["project", "exchange_id"])
    op.create_table(
        "case_events",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("case_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", UTC, nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("act", sa.String(), nullable=False),
        sa.Column("label", sa.String()),
        sa.Column("note", sa.String()),
        sa.ForeignKeyConstraint(
            ["project", "case_id"], ["cases.project", "cases.id"], name="fk_case_events_project_case_id"
        ),
        sa.PrimaryKeyConstraint("project", "case_id", "number", name="pk_case_events"),
    )


def downgrade() -> None:
    op.drop_table("case_events")
    op.drop_table("cases")
