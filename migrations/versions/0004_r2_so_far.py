"""A job knows how good its explanation is so far.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("r2_so_far", sa.Double()))


def downgrade() -> None:
    # a batch would copy the whole table on SQLite, which drops a column in place since 3.35
    op.drop_column("outbox", "r2_so_far")
