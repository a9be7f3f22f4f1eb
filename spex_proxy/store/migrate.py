"""The store's schema, moved by Alembic. Only those who move it pay for importing that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.pool import NullPool

from spex_proxy.facts.errors import SettingsError
from spex_proxy.store.connect import address_of, migrations_folder, revision_state, said_clearly, sqlite_engine

_UPGRADE_LOCK = 0x53504558
"""Key of the PostgreSQL advisory lock that serialises upgrades: the letters SPEX."""


def upgrade(engine: sa.Engine) -> str:
    """Bring the schema to this code's revision and return it. Any number of processes may call at once.

    All of it is one transaction: a failed upgrade leaves the store as it was.
    Raises SettingsError if the store can't be opened or written, or comes from a newer version.
    """
    state = revision_state(engine)
    if not state.is_current:
        try:
            with said_clearly(engine):
                _migrate(engine, "upgrade", state.head)
        except CommandError as error:
            shown = address_of(engine.url)
            raise SettingsError(
                f"the store {shown} was made by a newer version of spex-proxy ({error}): "
                "install that version, or name another store"
            ) from error
    return state.head


def downgrade(engine: sa.Engine, revision: str) -> None:
    """Take the schema back to `revision`; `base` drops everything. For development and tests."""
    _migrate(engine, "downgrade", revision)


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _migrate(engine: sa.Engine, direction: str, revision: str) -> None:
    """Run Alembic on one connection, in one transaction, alone."""
    config = _alembic_config()
    migrating = engine
    if engine.dialect.name == "sqlite":
        # Alembic alters SQLite tables by copying and dropping them, which enforced foreign keys forbid;
        # and that pragma can't be changed inside a transaction. Hence a connection of its own.
        migrating = sqlite_engine(engine.url, foreign_keys=False, poolclass=NullPool)
    with migrating.begin() as conn:
        if conn.dialect.name == "postgresql":
            conn.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
        config.attributes["connection"] = conn
        run = command.upgrade if direction == "upgrade" else command.downgrade
        run(config, revision)
