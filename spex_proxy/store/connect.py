"""Opening the store: engine, transactions, where its schema stands (store/migrate.py moves it).

Callers own transactions:

    with engine.begin() as conn:      writes; on SQLite the write lock is taken at once
    with reading(engine) as conn:     reads one consistent state; writing in it is an error

On SQLite a transaction that reads first and writes later can fail with "database is locked" however
long it is willing to wait, because another writer changed what it had read. So each transaction here
says at its start what it is: BEGIN IMMEDIATE, or BEGIN on a connection that refuses to write.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from spex_proxy.facts.errors import SettingsError
from spex_proxy.store.rows import STOPPED_SECONDS

StoreError = sa.exc.SQLAlchemyError
"""What any function of this room raises when the database fails: for those who must go on without it."""

BUSY_SECONDS = 30.0
"""How long a writer waits for another one; the longest transactions here take well under a second."""

_READ_ONLY = "spex_read_only"

_POSTGRES_ARGS: dict[str, Any] = {
    "application_name": "spex-proxy",
    "connect_timeout": 10,
    "prepare_threshold": None,  # prepared statements break behind pgbouncer in transaction mode
}

_WALK_INDEXES = "SELECT " + ", ".join(
    f"set_config('{name}', 'off', true)" for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit")
)
"""All that is read here walks an index and ends after a page. PostgreSQL's planner does not know how soon (what is
tried on each row has no statistics), and would rather hash a whole table, or compile the plan, for fifty rows: with a
million exchanges 0.8 s instead of 0.1. For this transaction only; where there is no index it still reads the table."""

_URL_FORMS = "sqlite:///path/to/store.db or postgresql://user:password@host/database"

_PRAGMAS = (
    # FULL, not NORMAL: with NORMAL a power cut may take back transactions that were committed, that is
    # readings which the model server was already paid for, and, worse, history that a published
    # checkpoint has vouched for, which is then indistinguishable from tampering. It costs one fsync a
    # commit, and nobody who commits here stands on the path of production's bytes.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    # Erased content is overwritten in the file, not only unlinked from it.
    "PRAGMA secure_delete=ON",
)


@dataclass(frozen=True, slots=True)
class RevisionState:
    """Where a store's schema stands."""

    current: str | None
    """Revision of the store; None if it was never migrated."""
    head: str
    """Revision that this version of the code needs."""

    @property
    def is_current(self) -> bool:
        return self.current == self.head


def open_store(url: str, *, create: bool = True) -> sa.Engine:
    """An engine for `sqlite:///path`, `sqlite:////absolute/path` or `postgresql://...`.

    With `create`, a missing SQLite file and its folder are made, readable by their owner only.
    Nothing is migrated (`upgrade`) and PostgreSQL isn't contacted yet.
    Raises SettingsError if the URL can't be used or the file can't be made; no message holds a password.
    """
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:
        # the URL itself may hold a password, so neither it nor the cause is shown
        raise SettingsError("the store's URL can't be read: write " + _URL_FORMS) from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        _prepare_file(parsed, create=create)
        return sqlite_engine(parsed)
    if backend in ("postgresql", "postgres"):
        return _postgres_engine(parsed)
    raise SettingsError(f"the store can't be kept in {backend!r}: write {_URL_FORMS}")


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A read-only transaction: waits for no writer on either database, and keeps none waiting."""
    options: dict[str, Any] = {_READ_ONLY: True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as conn, conn.begin():
        if engine.dialect.name == "postgresql":
            conn.exec_driver_sql(_WALK_INDEXES)
        yield conn


def revision_state(engine: sa.Engine) -> RevisionState:
    """Reads only: whoever is about to trust the tables asks first. Raises SettingsError if it can't be opened."""
    with said_clearly(engine), reading(engine) as conn:
        is_migrated = sa.inspect(conn).has_table("alembic_version")
        current = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() if is_migrated else None
    return RevisionState(current, revision_head())


def revision_head() -> str:
    """Of this code. Our revisions are numbered, so that nobody imports Alembic only to learn the last one's name."""
    return max(file.name.partition("_")[0] for file in (migrations_folder() / "versions").glob("[0-9]*_*.py"))


def address_of(url: URL | str) -> str:
    """A store's URL for people and logs: without its password, wherever in it that stands."""
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:
        return "(its URL can't be read)"
    secrets = [name for name in parsed.query if "password" in name.lower()]
    return parsed.difference_update_query(secrets).render_as_string(hide_password=True)


@contextmanager
def said_clearly(engine: sa.Engine) -> Iterator[None]:
    """Opening a store fails for reasons that an operator can mend; later failures are the callers' to survive."""
    shown = address_of(engine.url)
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise SettingsError(f"the store {shown} can't be opened or written: {error.orig}") from error


def migrations_folder() -> Path:
    """Inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def open_beside(engine: sa.Engine, name: str) -> sa.Engine:
    """A second engine for the job runner's own tables: on SQLite a file beside the store's (`spex.db` ->
    `spex-jobs.db`), so that its polling never waits for our transactions, nor they for it; on PostgreSQL the
    same database. It begins and ends transactions as that library expects, not as ours does."""
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        url = engine.url.set(database=str(path.with_name(f"{path.stem}-{name}{path.suffix}")))
        _prepare_file(url, create=True)
        beside = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        sa.event.listen(beside, "connect", _set_up_beside_sqlite)
        return beside
    beside = sa.create_engine(engine.url, pool_size=5, connect_args=_POSTGRES_ARGS)
    sa.event.listen(beside, "connect", _set_up_beside_postgres)
    sa.event.listen(beside, "handle_error", _call_bad_connections_lost)
    return beside


def _set_up_beside_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = "IMMEDIATE"
    _switch_to_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _switch_to_wal(connection: Any) -> None:
    """One writer beside any number of readers; in the other journal modes readers and writers lock each other
    out (measured: a third of all reads failed). The file remembers the mode.

    While several processes open a new file at once, the switch fails at once instead of waiting as all else does.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _set_up_beside_postgres(connection: Any, _record: object) -> None:
    """A process that was stopped in the middle of taking jobs gives them free again."""
    connection.execute(f"SET idle_in_transaction_session_timeout = '{STOPPED_SECONDS}s'")
    connection.commit()


def _call_bad_connections_lost(context: sa.engine.ExceptionContext) -> None:
    """On a unix socket psycopg says so of a server that is restarting; the runner waits only for lost ones."""
    if "connection is bad" in str(context.original_exception):
        context.is_disconnect = True


def _prepare_file(url: URL, *, create: bool) -> None:
    """Make the file before SQLite does, because SQLite would make it readable by everybody."""
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise SettingsError(
            "the store must be a file that all processes and threads share: write sqlite:///path/to/store.db"
        )
    path = Path(url.database)
    if path.exists():
        return
    if not create:
        raise SettingsError(f"there is no store at {path}: start `spex-proxy up` once, or name another store")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError as error:
        raise SettingsError(f"the store {path} can't be made: {error}") from error


def sqlite_engine(url: URL, *, foreign_keys: bool = True, **options: Any) -> sa.Engine:
    """For `open_store` and for migrations."""
    engine = sa.create_engine(
        url.set(drivername="sqlite+pysqlite"),
        connect_args={"timeout": BUSY_SECONDS},
        hide_parameters=True,  # they are people's content, and errors end in logs
        **options,
    )

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        # Left alone, the sqlite3 module opens transactions by itself: too late, and not for DDL or
        # SELECT. From here on only `begin` below does.
        connection.isolation_level = None
        _switch_to_wal(connection)
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        if not foreign_keys:
            connection.execute("PRAGMA foreign_keys=OFF")

    @sa.event.listens_for(engine, "begin")
    def begin(conn: sa.Connection) -> None:
        read_only = conn.get_execution_options().get(_READ_ONLY, False)
        conn.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        conn.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _postgres_engine(url: URL) -> sa.Engine:
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,  # they are people's content, and errors end in logs
        pool_pre_ping=True,  # a restarted server costs one reconnect, not one failed transaction
        connect_args=_POSTGRES_ARGS,
    )
