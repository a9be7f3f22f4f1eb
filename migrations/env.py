"""Alembic's entry: runs the revisions on the connection that it is given.

The program hands one over (spex_proxy.store.migrate.upgrade), in a transaction of its own. A developer
who calls the `alembic` command names a store instead:

    alembic -c migrations/alembic.ini -x url=sqlite:////tmp/new.db \
        revision --autogenerate --rev-id 0002 -m "what it does"
"""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from spex_proxy.store.columns import Id, Text, UtcDateTime
from spex_proxy.store.connect import open_store
from spex_proxy.store.tables import metadata


def render(kind: str, item: Any, _: AutogenContext) -> str | Literal[False]:
    """A revision spells our types out: it must not change when tables.py does."""
    spelled = {
        UtcDateTime: "sa.DateTime(timezone=True)",
        Id: 'sa.String().with_variant(sa.String(collation="C"), "postgresql")',
        Text: "sa.String()",
    }
    return spelled.get(type(item), False) if kind == "type" else False


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_item=render,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by copying it
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        raise SystemExit("name a store: alembic -c migrations/alembic.ini -x url=sqlite:////tmp/new.db ...")
    engine = open_store(url)
    with engine.begin() as connection:
        run(connection)
    engine.dispose()
