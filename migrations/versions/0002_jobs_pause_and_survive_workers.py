"""Jobs can be paused, know how often they came back to the queue, and workers say that they live.

Revision 0002, after 0001.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.String().with_variant(sa.String(collation="C"), "postgresql")
UTC = sa.DateTime(timezone=True)
BEFORE = "state IN ('queued', 'running', 'done', 'failed', 'cancelled')"
AFTER = "state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled')"


def upgrade() -> None:
    with altered_outbox(AFTER) as outbox:
        outbox.drop_column("heartbeat_at")
        outbox.add_column(sa.Column("dispatch", sa.Integer(), server_default="0", nullable=False))
        outbox.add_column(sa.Column("dispatched_at", UTC))
        outbox.add_column(sa.Column("failures", sa.Integer(), server_default="0", nullable=False))
        outbox.add_column(sa.Column("takeovers", sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "pauses",
        sa.Column("project", ID, server_default="default", nullable=False),
        sa.Column("paused_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.project"], name="fk_pauses_project"),
        sa.PrimaryKeyConstraint("project", name="pk_pauses"),
    )
    op.create_table(
        "workers",
        sa.Column("id", ID, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("started_at", UTC, nullable=False),
        sa.Column("seen_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_index("ix_workers_seen", "workers", ["seen_at"])


def downgrade() -> None:
    op.drop_table("workers")
    op.drop_table("pauses")
    op.execute("UPDATE outbox SET state = 'queued' WHERE state = 'paused'")
    with altered_outbox(BEFORE) as outbox:
        for column in ("takeovers", "failures", "dispatched_at", "dispatch"):
            outbox.drop_column(column)
        outbox.add_column(sa.Column("heartbeat_at", UTC))


@contextmanager
def altered_outbox(states: str) -> Iterator[BatchOperations]:
    """With another check of its states. SQLite copies the table; whether the copy gets the old check depends
    on the version of SQLAlchemy."""
    columns = sa.Table("outbox", sa.MetaData(), autoload_with=op.get_bind())
    is_copied = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("outbox") as outbox:
        if not is_copied or any(isinstance(part, sa.CheckConstraint) for part in columns.constraints):
            outbox.drop_constraint(op.f("ck_outbox_state"), type_="check")
        outbox.create_check_constraint(op.f("ck_outbox_state"), states)
        yield outbox
