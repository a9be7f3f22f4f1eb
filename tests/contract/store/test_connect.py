"""Opening, migrating and locking."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from spex_proxy.facts.errors import SettingsError
from spex_proxy.store import connect
from spex_proxy.store.connect import open_store, reading, revision_state
from spex_proxy.store.migrate import downgrade, upgrade
from spex_proxy.store.rows import get_or_create_project
from spex_proxy.store.tables import metadata, projects

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def differences(engine: sa.Engine) -> list[object]:
    def ours(name: str | None, kind: str, _parents: object) -> bool:
        """What SQLite makes beside its index of words, is no table of ours."""
        return kind != "table" or not str(name).startswith("text_index")

    def here(item: Any, *_: object) -> bool:
        """Alembic does not ask `ddl_if`."""
        return not isinstance(item, sa.Index) or item.name != "ix_texts_words" or engine.dialect.name == "postgresql"

    options = {"compare_type": True, "compare_server_default": True, "include_name": ours, "include_object": here}
    with reading(engine) as conn:
        return list(compare_metadata(MigrationContext.configure(conn, opts=options), metadata))


def schema(engine: sa.Engine) -> dict[str, object]:
    """Everything that the database itself says of its tables, checks and partial indexes included."""
    inspector = sa.inspect(engine)

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(part) for key, part in value.items()}
        return [plain(part) for part in value] if isinstance(value, list) else str(value)

    return {
        table: [
            plain(inspector.get_columns(table)),
            plain(inspector.get_pk_constraint(table)),
            sorted(map(str, plain(inspector.get_foreign_keys(table)))),
            sorted(map(str, plain(inspector.get_indexes(table)))),
            sorted(map(str, plain(inspector.get_unique_constraints(table)))),
            sorted(map(str, plain(inspector.get_check_constraints(table)))),
        ]
        for table in sorted(set(inspector.get_table_names()) - {"alembic_version"})
    }


def test_the_migrations_make_exactly_the_tables(database: Callable[[bool], str]) -> None:
    migrated, created = open_store(database(True)), open_store(database(False))
    with created.begin() as conn:
        metadata.create_all(conn)
    assert differences(migrated) == []
    assert schema(migrated) == schema(created)
    migrated.dispose()
    created.dispose()


def test_upgrade_downgrade_upgrade(empty_url: str) -> None:
    engine = open_store(empty_url)
    assert revision_state(engine).current is None
    assert not revision_state(engine).is_current
    assert upgrade(engine) == revision_state(engine).head
    assert revision_state(engine).is_current
    downgrade(engine, "base")
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    assert revision_state(engine).current is None
    upgrade(engine)
    assert differences(engine) == []
    engine.dispose()


def test_there_is_one_head_and_its_name_fits_alembics_column() -> None:
    names = [path.stem for path in (connect.migrations_folder() / "versions").glob("*.py")]
    assert min(names).startswith("0001_")
    revisions = list(ScriptDirectory(str(connect.migrations_folder())).walk_revisions())
    (head,) = (revision.revision for revision in revisions if revision.is_head)
    assert connect.revision_head() == head, "it is told from the files' numbers, without Alembic"
    assert max(len(revision.revision) for revision in revisions) <= 32


def test_many_upgrade_at_once(empty_url: str) -> None:
    """Threads here, processes below; each with an engine of its own, all on an empty store."""
    barrier = threading.Barrier(6)

    def one(_: int) -> str:
        engine = open_store(empty_url)
        barrier.wait()
        try:
            return upgrade(engine)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(one, range(6)))) == 1


def test_processes_upgrade_at_once(file: Path) -> None:
    """SQLite's locks between processes are not those between threads."""
    code = (
        "import sys; from spex_proxy.store.connect import open_store; from spex_proxy.store.migrate import upgrade; "
        "e = open_store('sqlite:///' + sys.argv[1]); print(upgrade(e)); e.dispose()"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert len(set(outputs)) == 1


def test_a_store_of_a_newer_version_is_refused(database: Callable[[bool], str]) -> None:
    engine = open_store(database(True))
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    assert not revision_state(engine).is_current
    with pytest.raises(SettingsError, match=r"newer version of spex-proxy .*9999"):
        upgrade(engine)
    engine.dispose()


def test_a_failed_upgrade_leaves_nothing(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_store(empty_url)

    def fails_late(*args: object) -> None:
        real(*args)
        raise RuntimeError("power cut")

    real = command.upgrade
    monkeypatch.setattr(command, "upgrade", fails_late)
    with pytest.raises(RuntimeError, match="power cut"):
        upgrade(engine)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


def test_a_project_is_made_once(engine: sa.Engine) -> None:
    for _ in range(2):
        with engine.begin() as conn:
            assert get_or_create_project(conn, "acme") == "acme"
    with reading(engine) as conn:
        assert conn.execute(sa.select(projects.c.project)).all() == [("acme",)]


def test_times_come_back_in_utc_and_naive_ones_are_refused(engine: sa.Engine) -> None:
    east = datetime(2026, 11, 22, 14, 0, 0, 1, tzinfo=timezone(timedelta(hours=2)))
    with engine.begin() as conn:
        conn.execute(sa.insert(projects).values(project="p", created_at=east))
        stored = conn.scalar(sa.select(projects.c.created_at))
        assert stored == east
        assert stored.tzinfo is UTC
    naive = east.replace(tzinfo=None)
    with pytest.raises(sa.exc.StatementError, match="no time without a zone"), engine.begin() as conn:
        conn.execute(sa.insert(projects).values(project="q", created_at=naive))


def test_a_read_transaction_refuses_to_write_and_sees_one_state(engine: sa.Engine) -> None:
    with reading(engine) as conn:
        assert conn.scalar(sa.select(sa.func.count()).select_from(projects)) == 0
        with engine.begin() as writer:
            get_or_create_project(writer, "meanwhile")
        assert conn.scalar(sa.select(sa.func.count()).select_from(projects)) == 0
    with pytest.raises(sa.exc.DBAPIError, match=r"read.?only"), reading(engine) as conn:
        get_or_create_project(conn, "never")
    with engine.begin() as conn:  # the same pooled connection writes again
        get_or_create_project(conn, "later")


def test_writers_wait_for_each_other_even_if_they_read_first(engine: sa.Engine) -> None:
    """The trap of SQLite's deferred transactions: read, then write, then `database is locked`."""
    with engine.begin() as conn:
        get_or_create_project(conn, "0")

    def add_one(_: int) -> None:
        with engine.begin() as conn:
            if conn.dialect.name == "postgresql":
                conn.execute(sa.text("LOCK TABLE projects IN EXCLUSIVE MODE"))
            names = conn.scalars(sa.select(projects.c.project)).all()
            get_or_create_project(conn, str(len(names)))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add_one, range(20)))
    with reading(engine) as conn:
        assert conn.scalar(sa.select(sa.func.count()).select_from(projects)) == 21


# ------------------------------------------------------------------------------------------- SQLite


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a" / "b" / "spex.db"


def test_sqlite_is_set_up(file: Path) -> None:
    engine = open_store(f"sqlite:///{file}")
    upgrade(engine)
    with engine.begin() as conn:
        pragmas = {
            name: conn.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
        "secure_delete": 1,
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    engine.dispose()


def test_rows_of_unknown_parents_are_refused(engine: sa.Engine) -> None:
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as conn:
        conn.execute(
            sa.text(
                "INSERT INTO explanation_games (project, explanation_id, position, game_id)"
                " VALUES ('default', 'none', 0, 'none')"
            )
        )


def test_a_missing_store_is_not_made_for_a_reader(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no store at .*spex\.db"):
        open_store(f"sqlite:///{file}", create=False)
    assert not file.parent.exists()


def test_an_unwritable_place_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file, not a folder")
    with pytest.raises(SettingsError, match=r"plain/spex\.db can't be made: .*plain"):
        open_store(f"sqlite:///{tmp_path / 'plain' / 'spex.db'}")
    with pytest.raises(SettingsError, match="can't be made"):
        open_store("sqlite:////proc/nowhere/spex.db")


def test_a_file_that_is_no_database_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "spex.db").write_text("no database, but long enough to be looked at" * 50)
    engine = open_store(f"sqlite:///{tmp_path / 'spex.db'}")
    with pytest.raises(SettingsError, match=r"spex\.db can't be opened or written: file is not a database"):
        upgrade(engine)
    engine.dispose()


def test_a_full_disk_is_one_kind_of_error_and_leaves_the_store_sound(file: Path) -> None:
    engine = open_store(f"sqlite:///{file}")
    upgrade(engine)
    with engine.connect() as conn:  # max_page_count is how SQLite lets one pretend
        conn.exec_driver_sql("PRAGMA max_page_count=1")
        with pytest.raises(connect.StoreError, match="disk is full"):
            conn.execute(sa.insert(projects), [{"project": f"{i:0999d}", "created_at": NOON} for i in range(999)])
    engine.dispose()
    again = open_store(f"sqlite:///{file}", create=False)
    with reading(again) as conn:
        assert conn.scalar(sa.select(sa.func.count()).select_from(projects)) == 0
        assert conn.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    again.dispose()


def test_a_server_that_is_not_there_is_said_clearly() -> None:
    engine = open_store("postgresql://someone:secret@127.0.0.1:1/none")
    with pytest.raises(SettingsError, match="can't be opened or written") as caught:
        upgrade(engine)
    assert "secret" not in str(caught.value)
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://a:secret@b/c", "secret nonsense", ""])
def test_urls_that_can_not_work_are_refused_without_showing_them(url: str) -> None:
    with pytest.raises(SettingsError, match="write sqlite:///") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_every_form_of_url_gets_our_drivers() -> None:
    for url in ("postgres://u@h/d", "postgresql://u@h/d", "postgresql+psycopg2://u@h/d"):
        engine = open_store(url)
        assert engine.url.drivername == "postgresql+psycopg"
        engine.dispose()


def test_erased_bytes_leave_the_file(file: Path) -> None:
    """`secure_delete`: what was deleted is overwritten, here and once the write-ahead log is folded in."""
    engine = open_store(f"sqlite:///{file}")
    upgrade(engine)
    with engine.begin() as conn:
        get_or_create_project(conn, "MARKER" * 20)
    with engine.begin() as conn:
        conn.execute(sa.delete(projects))
    engine.dispose()
    with sqlite3.connect(file) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    everything = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert b"MARKERMARKER" not in everything


def test_only_the_owner_reads_the_log_files_too(file: Path) -> None:
    engine = open_store(f"sqlite:///{file}")
    upgrade(engine)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    engine.dispose()
