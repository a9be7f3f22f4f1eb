"""The model asked again: re-tests, and jobs that are not explanations.

Revision 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("outbox", sa.Column("kind", sa.String(), server_default="explain", nullable=False))
    op.add_column("outbox", sa.Column("task", sa.JSON()))
    op.create_table(
        "retests",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("id", ID, nullable=False),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("explanation_id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("players", sa.JSON(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("answered_at", UTC),
        sa.Column("outcome", sa.JSON()),
        sa.CheckConstraint(
            "(outcome IS NULL) = (answered_at IS NULL)", name=op.f("ck_retests_outcome_when_answered")
        ),
        *(
            sa.ForeignKeyConstraint(
                ["project", column], [f"{parent}.project", f"{parent}.id"], name=f"fk_retests_project_{column}"
            )
            for parent, column in (
                ("exchanges", "exchange_id"), ("explanations", "explanation_id"), ("outbox", "job_id"),
            )
        ),
        sa.PrimaryKeyConstraint("project", "id", name="pk_retests"),
    )  # fmt: skip
    op.create_index("ix_retests_exchange", "retests", ["project", "exchange_id", "created_at", "id"])
    op.create_table(
        "retest_texts",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("retest_id", ID, nullable=False),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("blob", sa.LargeBinary()),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("erased_at", UTC),
        sa.CheckConstraint("(blob IS NULL) = (erased_at IS NOT NULL)", name=op.f("ck_retest_texts_blob_or_erased")),
        sa.ForeignKeyConstraint(
            ["project", "retest_id"], ["retests.project", "retests.id"], name="fk_retest_texts_project_retest_id"
        ),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"],
            ["exchanges.project", "exchanges.id"],
            name="fk_retest_texts_project_exchange_id",
        ),
        sa.PrimaryKeyConstraint("project", "retest_id", name="pk_retest_texts"),
    )
    op.create_index("ix_retest_texts_exchange", "retest_texts", ["project", "exchange_id"])


def downgrade() -> None:
    op.drop_table("retest_texts")
    op.drop_table("retests")
    # a batch would copy the whole table on SQLite, which drops a column in place since 3.35
    op.drop_column("outbox", "task")
    op.drop_column("outbox", "kind")
