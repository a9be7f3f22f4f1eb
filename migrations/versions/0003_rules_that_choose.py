"""Sampling rules: their versions, how much of their caps is used, and which rule chose an exchange.

Revision 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("exchanges", sa.Column("rule", sa.String()))
    op.add_column("exchanges", sa.Column("rules_digest", sa.String()))
    op.create_table(
        "rule_books",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("digest", ID, nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("loaded_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.project"], name="fk_rule_books_project"),
        sa.PrimaryKeyConstraint("project", "digest", name="pk_rule_books"),
    )
    op.create_table(
        "rule_uses",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("rule", ID, nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("starts_at", UTC, nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.project"], name="fk_rule_uses_project"),
        sa.PrimaryKeyConstraint("project", "rule", "period", "starts_at", name="pk_rule_uses"),
    )


def downgrade() -> None:
    op.drop_table("rule_uses")
    op.drop_table("rule_books")
    op.drop_column("exchanges", "rules_digest")
    op.drop_column("exchanges", "rule")
