"""Databases that go away under a worker: deleted, restarted, locked, full. Nothing that was answered is lost."""

from __future__ import annotations

import resource
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade
from tests.contract.store.postgres import Server, Unavailable
from tests.contract.store.postgres import running as running_postgres
from tests.story.jobs.factory import MASKS, Factory, PacedModel
from tests.story.processes import wait_until
from tests.story.scripted_model import waiting

pytestmark = pytest.mark.timeout(240)

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def path_of(factory: Factory) -> Path:
    return Path(str(factory.store.url.database))


def test_the_runners_database_is_deleted_while_all_are_stopped(factory: Factory) -> None:
    """One job under way, two waiting: none of them is known to it any more, and all of them are explained."""
    factory.ask(3)
    factory.model.faults.extend([lambda reply: [reply]] * 2)
    factory.model.always = waiting(factory.model.gate())
    with factory.worker(worker_concurrency=1) as worker:
        factory.wait_asked(24)
        worker.kill()
    if factory.is_sqlite:
        for file in path_of(factory).parent.glob("*-jobs.db*"):
            file.unlink()
    else:
        with factory.store.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA jobs CASCADE")
    factory.model.always = None
    with factory.worker() as worker:
        factory.wait_done(3)
        assert worker.stop() == 0
    factory.assert_adds_up(most_lost_batches=1)
    assert len(factory.model.asked) == 3 * MASKS + 8


@on_sqlite
def test_a_store_that_is_locked_for_longer_than_a_try(factory: Factory, tmp_path: Path) -> None:
    """A try is half a minute long; here it is one second, so that three fit into the test."""
    (tmp_path / "sitecustomize.py").write_text("import spex_proxy.store.connect as c\nc.BUSY_SECONDS = 1.0\n")
    factory.model.delay_s = 0.1
    factory.ask(2)
    with factory.worker({"PYTHONPATH": str(tmp_path)}) as worker:
        factory.wait_asked(8)
        with closing(sqlite3.connect(path_of(factory), isolation_level=None, timeout=30)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(5)
            other.execute("ROLLBACK")
        factory.wait_done(2)
        assert worker.stop() == 0
    assert worker.log.count("trying again: database is locked") >= 2
    factory.assert_adds_up()
    assert len(factory.model.asked) == 2 * MASKS, "what was answered meanwhile was held, and stored"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a limit be lifted from outside")
@on_sqlite
def test_a_disk_that_is_full_and_then_is_not(factory: Factory) -> None:
    """The disk is a limit on the size of a file: of the store and of the runner's database alike."""
    factory.model.delay_s = 0.1
    factory.ask(6)
    with factory.worker() as worker:
        factory.wait_asked(8)
        smallest = min(file.stat().st_size for file in path_of(factory).parent.glob("*.db-wal"))
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (smallest, resource.RLIM_INFINITY))
        wait_until(lambda: "disk" in worker.log, 30)
        asked = len(factory.model.asked)
        time.sleep(3)
        assert len(factory.model.asked) - asked <= 8, "what can't be stored is not asked"
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        factory.wait_done(6, within_s=90)
        assert worker.stop() == 0
    factory.assert_adds_up(most_lost_batches=1)
    with closing(sqlite3.connect(path_of(factory))) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# ---- PostgreSQL goes away: a server of this test's own ----


@pytest.fixture
def server() -> Iterator[Server]:
    try:
        with running_postgres() as own:
            yield own
    except Unavailable as reason:
        pytest.skip(f"no PostgreSQL: {reason}")


@pytest.mark.postgres
def test_a_database_server_that_is_restarted(server: Server, model: PacedModel, tmp_path: Path) -> None:
    """Twice, with both workers at work: what was answered meanwhile is held and stored, nobody is held for dead."""
    url = server.url(server.make_database())
    engine = open_store(url)
    upgrade(engine)
    engine.dispose()
    model.delay_s = 0.1
    with Factory(url, model, tmp_path) as factory:
        factory.ask(12)
        with factory.worker() as one, factory.worker() as other:
            wait_until(lambda: len(factory.alive()) == 2, 30)
            for _ in range(2):
                factory.wait_asked(len(model.asked) + 16)
                server.stop()
                time.sleep(3.5)  # longer than it takes to be held for dead
                server.start()
            factory.wait_done(12, within_s=90)
            assert (one.stop(), other.stop()) == (0, 0)
        factory.assert_adds_up()
        assert len(model.asked) == 12 * MASKS
        assert "dead worker" not in one.log + other.log
