"""Trouble that lasts, or that no clock can be trusted in: with the settings and the clocks that production has."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from spex_proxy.store.connect import BUSY_SECONDS
from tests.story.jobs.factory import MASKS, Factory, PacedModel

pytestmark = pytest.mark.timeout(300)

LOCKED_S = 60.0
HOUR_S = 3600
_CLOCK = Path(__file__).with_name("clock.c")


@contextmanager
def locked(factory: Factory) -> Iterator[None]:
    """Nobody else can write: on SQLite to the whole store, on PostgreSQL to what workers keep and claim."""
    if factory.is_sqlite:
        file = str(factory.store.url.database)
        with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
    else:
        with factory.store.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE outbox, evidence_blocks, explanations IN ACCESS EXCLUSIVE MODE")
            yield


@pytest.fixture
def both(postgres: Callable[[bool], str], sqlite_template: Path, tmp_path: Path) -> Iterator[tuple[Factory, Factory]]:
    """A factory on each database, side by side: they have the same minute to wait for."""
    folders = tmp_path / "sqlite", tmp_path / "postgresql"
    for folder in folders:
        folder.mkdir()
    file = shutil.copy(sqlite_template, folders[0] / "spex.db")
    with ExitStack() as stack:
        urls = f"sqlite:///{file}", postgres(True)
        models = [stack.enter_context(PacedModel(0.1)) for _ in urls]
        made = [stack.enter_context(Factory(*one)) for one in zip(urls, models, folders, strict=True)]
        yield made[0], made[1]


@pytest.mark.slow
@pytest.mark.postgres
def test_stores_that_are_locked_for_a_minute(both: tuple[Factory, Factory]) -> None:
    """Twice as long as a writer waits. What was answered before and meanwhile is stored, and not asked again."""
    assert LOCKED_S >= 2 * BUSY_SECONDS
    for factory in both:
        factory.ask(3)
    with ExitStack() as stack:
        workers = [stack.enter_context(factory.worker()) for factory in both]
        with ExitStack() as locks:
            for factory in both:
                factory.wait_asked(8)
                locks.enter_context(locked(factory))
            time.sleep(LOCKED_S)
            asked = [len(factory.model.asked) for factory in both]
        for factory, worker in zip(both, workers, strict=True):
            factory.wait_done(3, within_s=120)
            assert worker.stop() == 0
    for factory, before in zip(both, asked, strict=True):
        factory.assert_adds_up()
        assert len(factory.model.asked) == 3 * MASKS
        assert before < 3 * MASKS, "it was locked before they were done"


class Clock:
    """The wall clock that a process sees; what it measures durations with goes on as ever."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = folder / "clock.so"
        build = ["cc", "-O1", "-shared", "-fPIC", "-o", str(self._library), str(_CLOCK), "-ldl"]
        subprocess.run(build, check=True)
        self._file.write_bytes(struct.pack("d", 0))

    def set(self, offset_s: int) -> None:
        with self._file.open("r+b") as file:  # in place: the processes have it mapped
            file.write(struct.pack("d", offset_s))

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "TEST_CLOCK": str(self._file)}


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    if not sys.platform.startswith("linux") or shutil.which("cc") is None:
        pytest.skip("the clock that can be set needs Linux and a C compiler: apt-get install gcc libc6-dev")
    return Clock(tmp_path)


@pytest.mark.parametrize("jumps", [(HOUR_S, 0), (-HOUR_S, 0), (HOUR_S, -HOUR_S)], ids=["ahead", "back", "both"])
def test_the_clock_of_a_machine_jumps(factory: Factory, clock: Clock, jumps: tuple[int, int]) -> None:
    """By an hour, twice, under a worker in mid-explanation: nothing is asked again, nobody is held for dead."""
    factory.model.delay_s = 0.1
    factory.ask(2)
    with factory.worker(clock.environment()) as worker:
        factory.wait_asked(8)
        clock.set(jumps[0])
        factory.wait_asked(32)
        clock.set(jumps[1])
        factory.wait_done(2)
        assert worker.stop() == 0
    factory.assert_adds_up(clocks_agree=False)
    assert len(factory.model.asked) == 2 * MASKS, "each reading was asked once"


def test_the_clock_that_tests_set_is_seen_by_a_process(clock: Clock) -> None:
    """Or the story above would prove nothing."""
    clock.set(HOUR_S)
    ask = [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"]
    said = subprocess.run(ask, env=os.environ | clock.environment(), capture_output=True, text=True, check=True).stdout
    wall, monotonic = map(float, said.split())
    assert wall - time.time() == pytest.approx(HOUR_S, abs=30)
    assert abs(monotonic - time.monotonic()) < 30
