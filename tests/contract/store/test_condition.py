"""The condition of the store, on both databases: what `doctor` asks of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from spex_proxy.store import connect, outbox, steering
from spex_proxy.store.columns import utc_now
from spex_proxy.store.condition import condition, disk, queue
from spex_proxy.store.connect import open_store, reading
from spex_proxy.store.tables import metadata, workers
from spex_proxy.store.tables import outbox as table
from spex_proxy.store.workers import beat
from tests.contract.store.samples import Make


def test_a_migrated_store_can_be_written_and_stays_as_it_was(engine: sa.Engine) -> None:
    seen = condition(engine, is_migrated=True)
    is_sqlite = engine.dialect.name == "sqlite"
    assert seen.version.startswith("SQLite 3." if is_sqlite else "PostgreSQL 1")
    assert seen.journal == ("WAL" if is_sqlite else None)
    assert seen.write_trouble is None
    assert seen.size > 10_000
    assert (seen.clock_ahead_s is None) == is_sqlite
    assert abs(seen.clock_ahead_s or 0.0) < 5  # one machine, one clock
    with reading(engine) as conn:
        assert all(not conn.execute(sa.select(table)).first() for table in metadata.sorted_tables)


def test_an_empty_database_is_left_empty(empty_url: str) -> None:
    engine = open_store(empty_url)
    assert condition(engine, is_migrated=False).write_trouble is None
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


def test_the_disk_is_known_for_files_only(engine: sa.Engine) -> None:
    seen = disk(engine)
    if engine.dialect.name == "sqlite":
        assert seen is not None
        assert 0 < seen.free <= seen.total
        assert seen.folder == Path(str(engine.url.database)).parent.resolve()
    else:
        assert seen is None


def test_a_store_that_cannot_be_written_says_why(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine.dialect.name == "sqlite":
        monkeypatch.setattr(connect, "BUSY_SECONDS", 0.05)
        other = open_store(str(engine.url))
        with engine.begin():  # somebody else holds the write lock
            seen = condition(other, is_migrated=True)
    else:
        with engine.begin() as conn:
            conn.exec_driver_sql("DROP ROLE IF EXISTS spex_reader")
            conn.exec_driver_sql("CREATE ROLE spex_reader LOGIN IN ROLE pg_read_all_data")
        other = open_store(engine.url.set(username="spex_reader").render_as_string())
        seen = condition(other, is_migrated=True)
    other.dispose()
    assert seen.write_trouble in ("database is locked", "permission denied for table projects")


def test_an_empty_queue(engine: sa.Engine) -> None:
    seen = queue(engine)
    assert set(seen.counts.values()) == {0}
    assert (seen.oldest_waiting_s, seen.workers, seen.orphans, seen.paused) == (None, 0, 0, ())


def test_who_waits_who_works_and_who_is_gone(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        ids = [outbox.enqueue(conn, exchange_id=make.saved(conn).id, recipe=make.recipe, why="drawn") for _ in range(4)]
        beat(conn, "alive", concurrency=1)
        beat(conn, "gone", concurrency=1)
        silent = sa.update(workers).where(workers.c.id == "gone")
        conn.execute(silent.values(seen_at=utc_now() - timedelta(minutes=5)))
        for worker, job_id in zip(("alive", "gone", "never heard of"), ids, strict=False):
            assert outbox.claim(conn, worker, job_id=job_id) is not None
        old = sa.update(table).where(table.c.id == ids[3])
        conn.execute(old.values(created_at=utc_now() - timedelta(minutes=10)))
    seen = queue(engine)
    assert (seen.counts["running"], seen.counts["queued"]) == (3, 1)
    assert (seen.workers, seen.orphans) == (1, 2)
    assert seen.oldest_waiting_s == pytest.approx(600, abs=20)


def test_what_is_paused_or_put_off_does_not_wait(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        outbox.enqueue(conn, exchange_id=make.saved(conn).id, recipe=make.recipe, why="drawn")
        steering.pause_queue(conn)
    seen = queue(engine)
    assert (seen.counts["queued"], seen.oldest_waiting_s, seen.paused) == (1, None, ("default",))
    with engine.begin() as conn:
        steering.resume_queue(conn)
        conn.execute(sa.update(table).values(retry_at=utc_now() + timedelta(minutes=10)))
    assert queue(engine).oldest_waiting_s is None
