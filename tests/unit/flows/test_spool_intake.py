"""The hand-off through a spool: nothing is lost while the store is away, and every exchange is counted once."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from spex_proxy.facts.exchange import RawExchange, Skipped
from spex_proxy.flows.intake import Intake, IntakeLimits
from spex_proxy.flows.understand import Captured
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.spool import Spool, SpoolLimits, segments
from tests.story.upstream import eventually
from tests.unit.flows.test_intake import QUICK, always, numbered
from tests.unit.wire.exchanges import raw, reply, said

Save = Callable[[Sequence[Captured]], Mapping[str, int]]


class Store:
    """Knows what it has, as the real one does. `refuses` says which batches fail."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.refuses: Callable[[list[str]], bool] = lambda _: False
        self.calls = 0

    def save(self, batch: Sequence[Captured]) -> dict[str, int]:
        self.calls += 1
        ids = [captured.exchange.id for captured in batch]
        if self.refuses(ids):
            raise OSError("the store is away")
        new = [one for one in ids if one not in self.ids]
        self.ids += new
        return {"kept": len(new), "known": len(ids) - len(new)}


@contextmanager
def intake(
    path: Path, save: Save, limits: IntakeLimits = QUICK, spool_limits: SpoolLimits | None = None
) -> Iterator[tuple[Intake, Counters]]:
    counters = Counters()
    spool = Spool(path, counters, spool_limits)
    running = Intake(save=save, choose=always, trace=lambda _: None, counters=counters, limits=limits, spool=spool)
    running.start()
    try:
        yield running, counters
    finally:
        running.close(5)
        assert_balanced(running, counters)
        assert not any(t.name in ("spex-intake", "spex-spool") for t in threading.enumerate())


def assert_balanced(running: Intake, counters: Counters) -> None:
    """offered + replayed = skipped + dropped + stored + known + waiting."""
    now = counters.snapshot()

    def total(name: str) -> float:
        found = now[name]
        return sum(found.values()) if isinstance(found, dict) else found

    came = total("offered_exchanges") + total("replayed_exchanges")
    went = sum(map(total, ("skipped_exchanges", "dropped_exchanges", "stored_exchanges", "known_exchanges")))
    assert came == went + running.waiting, now
    assert now["intake_queue_items"] == running.waiting


def records(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*.seg"))


def test_what_is_kept_is_stored_and_leaves_no_file(tmp_path: Path) -> None:
    store = Store()
    told: list[bool] = []
    with intake(tmp_path, store.save) as (running, counters):
        assert all(running.keep(numbered(i), told.append) for i in range(20))
        assert running.close(5) == 0
    assert store.ids == [f"id-{i}" for i in range(20)]
    assert told == [True] * 20
    assert counters.value("stored_exchanges") == 20
    assert list(tmp_path.iterdir()) == []


def test_outcomes_that_are_offered_are_counted_too(tmp_path: Path) -> None:
    store = Store()
    with intake(tmp_path, store.save) as (running, counters):
        assert not running.offer(Skipped("id-9", "client_gone"))
        assert running.offer(numbered(1))
        assert running.offer(raw(b"{bad", reply(said("Hello"))))
        running.close(5)
        assert not running.offer(numbered(2))
    assert store.ids == ["id-1"]
    assert counters.snapshot()["skipped_exchanges"] == {"client_gone": 1, "not_json": 1}
    assert counters.snapshot()["dropped_exchanges"] == {"closed": 1}


def test_a_store_that_is_away_for_long_loses_nothing(tmp_path: Path) -> None:
    store = Store()
    store.refuses = lambda _: True
    with intake(tmp_path, store.save, dataclasses.replace(QUICK, max_items=4, batch=8)) as (running, counters):
        for i in range(30):
            assert running.keep(numbered(i), lambda _: None)
        eventually(lambda: store.calls > 40)
        assert counters.value("spool_items") == 30
        store.refuses = lambda _: False
        assert running.close(5) == 0
    assert sorted(store.ids) == sorted(f"id-{i}" for i in range(30))
    assert counters.snapshot()["dropped_exchanges"] == {}
    assert records(tmp_path) == 0


@pytest.mark.parametrize("bad", [{"id-0"}, {"id-2", "id-3"}, {f"id-{i}" for i in range(5)}])
def test_bad_ones_are_given_up_once_the_store_takes_others(tmp_path: Path, bad: set[str]) -> None:
    store = Store()
    store.refuses = lambda ids: bool(bad & set(ids))
    with intake(tmp_path, store.save, dataclasses.replace(QUICK, batch=5)) as (running, counters):
        for i in range(12):
            assert running.keep(numbered(i), lambda _: None)
        eventually(lambda: running.waiting == 0)
    assert sorted(store.ids) == sorted({f"id-{i}" for i in range(12)} - bad)
    assert counters.snapshot()["dropped_exchanges"] == {"save_failed": len(bad)}


def test_what_is_left_is_said_and_stored_by_the_next_process(tmp_path: Path) -> None:
    store = Store()
    store.refuses = lambda _: True
    with intake(tmp_path, store.save) as (running, counters):
        for i in range(5):
            assert running.keep(numbered(i), lambda _: None)
        assert running.close(0.3) == 5
        assert counters.snapshot()["dropped_exchanges"] == {}
    store.refuses = lambda _: False
    with intake(tmp_path, store.save) as (running, counters):
        eventually(lambda: counters.value("stored_exchanges") == 5)
        assert counters.value("replayed_exchanges") == 5
    assert list(tmp_path.iterdir()) == []


def test_what_was_stored_before_the_crash_is_recognised(tmp_path: Path) -> None:
    """The crash came between the store's commit and the spool's clean-up."""
    store = Store()
    dead = Spool(tmp_path, Counters())
    told = threading.Event()
    dead.start(lambda _: None)
    for i in range(3):
        assert dead.put(numbered(i), lambda _: None) is None
    assert dead.put(numbered(3), lambda _: told.set()) is None
    assert told.wait(5)
    dead.close(5)
    dead.leave()
    store.ids = ["id-0", "id-2"]
    with intake(tmp_path, store.save) as (_, counters):
        eventually(lambda: counters.value("known_exchanges") == 2)
        eventually(lambda: counters.value("stored_exchanges") == 2)
    assert sorted(store.ids) == [f"id-{i}" for i in range(4)]


def test_without_a_disk_memory_is_what_is_left(tmp_path: Path) -> None:
    """Answers go out (the callback says False), exchanges are stored as under best effort, bounds and all."""
    (tmp_path / "file").write_text("")
    store, told, released = Store(), list[bool](), threading.Event()
    store.refuses = lambda _: not released.wait(10)
    with intake(tmp_path / "file", store.save, dataclasses.replace(QUICK, max_items=3)) as (running, counters):
        for i in range(5):
            assert running.keep(numbered(i), told.append)
        eventually(lambda: len(told) == 5)
        assert told == [False] * 5
        assert counters.value("faults", "spool") >= 1
        released.set()
        assert running.close(5) == 0
    assert len(store.ids) == 3
    assert counters.snapshot()["dropped_exchanges"] == {"queue_full": 2}


def test_a_full_spool_drops_and_counts(tmp_path: Path) -> None:
    store, held = Store(), list[RawExchange]()
    store.refuses = lambda _: True
    with intake(tmp_path, store.save, spool_limits=SpoolLimits(max_bytes=6000)) as (running, counters):
        while running.keep(numbered(len(held)), lambda _: None):
            held.append(numbered(len(held)))
        assert counters.snapshot()["dropped_exchanges"] == {"spool_full": 1}
        store.refuses = lambda _: False
        eventually(lambda: running.waiting == 0)
    assert len(store.ids) == len(held) > 0


def test_a_file_that_can_not_be_emptied_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that went read-only after the exchange was stored: what comes later is stored all the same."""
    store = Store()
    with intake(tmp_path, store.save) as (running, counters):

        def refuse(*_: object) -> None:
            raise PermissionError("the disk is read-only")

        with monkeypatch.context() as sick:
            sick.setattr(segments.os, "ftruncate", refuse)
            assert running.keep(numbered(0), lambda _: None)
            eventually(lambda: store.ids == ["id-0"])
            eventually(lambda: running.waiting == 0)
        for i in range(1, 5):
            assert running.keep(numbered(i), lambda _: None)
        eventually(lambda: running.waiting == 0)
        assert counters.snapshot()["faults"] == {"spool": 1}
    assert store.ids == [f"id-{i}" for i in range(5)]
    with intake(tmp_path, store.save) as (again, counters):
        eventually(lambda: counters.value("known_exchanges") == 1)  # its file was left
        assert again.waiting == 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_hangs_does_not_keep_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, hangs, sync = Store(), threading.Event(), segments._sync
    with intake(tmp_path, store.save) as (running, counters):

        def wait(fd: int) -> None:
            hangs.wait(30)
            sync(fd)

        monkeypatch.setattr(segments, "_sync", wait)
        told: list[bool] = []
        assert running.keep(numbered(0), told.append)
        assert running.close(0.2) == 1
        assert counters.snapshot()["dropped_exchanges"] == {"shutdown": 1}
        assert_balanced(running, counters)
        assert told == []
        hangs.set()
        eventually(lambda: told)
        eventually(lambda: not any(t.name == "spex-spool" for t in threading.enumerate()))
