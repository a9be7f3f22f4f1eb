"""Exchanges are found by user, tag, rule and words, explanations by where their strongest terms come from.

Rows that were there before are not found by these until `spex-proxy db reindex`.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "marks",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("name", ID, nullable=False),
        sa.Column("value", ID, nullable=False),
        sa.Column("received_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"], ["exchanges.project", "exchanges.id"], name="fk_marks_project_exchange_id"
        ),
        sa.PrimaryKeyConstraint("project", "exchange_id", "name", "value", name="pk_marks"),
    )
    op.create_index("ix_marks_value_time", "marks", ["project", "name", "value", "received_at", "exchange_id"])
    op.create_table(
        "texts",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("exchange_id", ID, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("words", sa.String().with_variant(postgresql.TSVECTOR(), "postgresql"), nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "exchange_id"], ["exchanges.project", "exchanges.id"], name="fk_texts_project_exchange_id"
        ),
        sa.PrimaryKeyConstraint("project", "exchange_id", name="pk_texts"),
    )
    op.create_index("uq_texts_number", "texts", ["number"], unique=True)
    if is_sqlite:
        op.execute(
            "CREATE VIRTUAL TABLE text_index USING fts5(words, content='texts', content_rowid='number', columnsize=0, "
            "tokenize='unicode61 remove_diacritics 0')"
        )
    else:
        op.create_index("ix_texts_words", "texts", ["words"], postgresql_using="gin")
    op.add_column("interactions", sa.Column("origins", sa.Integer(), server_default="0", nullable=False))
    op.create_index("ix_exchanges_rule_time", "exchanges", ["project", "rule", "received_at"])
    op.create_index("ix_explanations_verdict_time", "explanations", ["project", "verdict", "created_at"])
    op.create_index(
        "ix_exchanges_chosen",
        "exchanges",
        ["project", "explain_why", "received_at", "rule"],
        sqlite_where=sa.text("explain_why IN ('sampled', 'capped')"),
        postgresql_where=sa.text("explain_why IN ('sampled', 'capped')"),
    )


def downgrade() -> None:
    op.drop_index("ix_exchanges_chosen", "exchanges")
    op.drop_index("ix_explanations_verdict_time", "explanations")
    op.drop_index("ix_exchanges_rule_time", "exchanges")
    # a batch would copy the whole table on SQLite, which drops a column in place since 3.35
    op.drop_column("interactions", "origins")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE text_index")
    op.drop_table("texts")
    op.drop_table("marks")
