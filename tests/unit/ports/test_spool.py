"""The spool's files: what was written is found again, damage is told, secrets stay off the disk."""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.exchange import RawExchange
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.spool import Spool, SpoolLimits, Ticket
from spex_proxy.ports.spool.records import Record, frame, pack, scan, unpack
from tests.unit.wire.exchanges import raw, reply, said

MARK = bytes(range(16))
SECRETS = ((b"authorization", b"Bearer hunter2"), (b"x-api-key", b"hunter2"), (b"cookie", b"a=hunter2"))
PLAIN = ((b"content-type", b"application/json"), (b"x-user", b"ann \xe9"))


def numbered(number: int, size: int = 0) -> RawExchange:
    good = raw(answer=reply(said("Hello")), sent_headers=PLAIN)
    return dataclasses.replace(
        good, head=dataclasses.replace(good.head, id=f"id-{number}"), response_body=good.response_body + b" " * size
    )


def file_of(payloads: list[bytes]) -> bytes:
    return b"".join(frame(MARK, payload) + payload for payload in payloads)


def read(data: bytes) -> tuple[list[bytes], list[str]]:
    found = list(scan(data, MARK))
    records = [data[r.start : r.start + r.length] for r in found if isinstance(r, Record)]
    return records, [damage for damage in found if isinstance(damage, str)]


def test_an_exchange_survives_the_disk() -> None:
    one = raw(b"\x00\n\xff", b'{"a": "\n"}', sent_headers=PLAIN)
    assert unpack(pack(one)) == one


def test_what_is_no_exchange_is_a_ValueError() -> None:
    for payload in (b"", b"[]", b"{}\n", b'{"request_bytes": 1}\nab'):
        with pytest.raises(ValueError, match=r"."):
            unpack(payload)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_all_records_are_found(payloads: list[bytes]) -> None:
    assert read(file_of(payloads)) == (payloads, [])


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.data())
def test_a_cut_file_loses_its_end_only(payloads: list[bytes], data: st.DataObject) -> None:
    whole = file_of(payloads)
    cut = data.draw(st.integers(0, len(whole) - 1))
    records, damage = read(whole[:cut])
    assert records == payloads[: len(records)]
    is_clean = whole[:cut] == file_of(records)
    assert damage == ([] if is_clean else ["torn"])
    assert len(file_of(payloads[: len(records) + 1])) > cut


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.data())
def test_a_flipped_byte_costs_one_record(payloads: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(file_of(payloads))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    ends = [len(file_of(payloads[: i + 1])) for i in range(len(payloads))]
    hit = next(i for i, end in enumerate(ends) if place < end)
    records, damage = read(bytes(whole))
    assert records == payloads[:hit] + payloads[hit + 1 :]
    assert len(damage) == 1


def test_a_prompt_that_looks_like_a_record_is_none() -> None:
    inner = file_of([b"forged"]).replace(MARK, bytes(16))
    damaged = bytearray(file_of([inner, b"next"]))
    damaged[17] ^= 1  # the length: reading goes on at the next mark
    assert read(bytes(damaged)) == ([b"next"], ["corrupt"])


@contextmanager
def spool(path: Path, limits: SpoolLimits | None = None) -> Iterator[tuple[Spool, list[RawExchange | Ticket]]]:
    arrived: list[RawExchange | Ticket] = []
    running = Spool(path, Counters(), limits)
    running.start(arrived.append)
    try:
        yield running, arrived
    finally:
        running.close(5)
        running.leave()


def put(running: Spool, one: RawExchange) -> bool:
    """Whether it is on disk, once that is known."""
    told = threading.Event()
    said_so: list[bool] = []

    def then(is_kept: bool) -> None:
        said_so.append(is_kept)
        told.set()

    assert running.put(one, then) is None
    assert told.wait(5)
    return said_so == [True]


def files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()]


def test_what_is_put_is_on_disk_when_that_is_said_and_gone_when_it_is_done(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as (running, arrived):
        assert put(running, numbered(1))
        (ticket,) = arrived
        assert isinstance(ticket, Ticket)
        assert b"Hello" in ticket.segment.path.read_bytes()
        assert ticket.read() == numbered(1)
        running.done(ticket)
        assert ticket.segment.path.read_bytes() == b""
    assert files(tmp_path) == []


def test_only_the_owner_may_read_and_secrets_are_not_written(tmp_path: Path) -> None:
    one = dataclasses.replace(numbered(1), head=dataclasses.replace(numbered(1).head, headers=PLAIN + SECRETS))
    one = dataclasses.replace(one, response_headers=((b"set-cookie", b"s=hunter2"),))
    with spool(tmp_path / "spool") as (running, arrived):
        assert put(running, one)
        for path in [tmp_path / "spool", *(tmp_path / "spool").rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
            assert path.is_dir() or b"hunter2" not in path.read_bytes()
        (ticket,) = arrived
        assert isinstance(ticket, Ticket)
        assert ticket.read().head == one.head  # memory still has them, so rules can compare them


def test_a_dead_process_spool_is_replayed_and_removed(tmp_path: Path) -> None:
    with spool(tmp_path) as (dead, _):
        for i in range(3):
            assert put(dead, numbered(i))
    with spool(tmp_path) as (running, _):
        tickets = list(running.replay())
        assert [ticket.read().head.id for ticket in tickets] == ["id-0", "id-1", "id-2"]
        for ticket in tickets:
            running.done(ticket)
        assert files(tmp_path) == []


def test_a_living_process_spool_is_left_alone(tmp_path: Path) -> None:
    with spool(tmp_path) as (living, _), spool(tmp_path) as (other, _):
        assert put(living, numbered(1))
        assert list(other.replay()) == []
        assert list(living.replay()) == []
        assert len(files(tmp_path)) == 2


def test_full_files_are_followed_by_new_ones_and_removed_when_done(tmp_path: Path) -> None:
    with spool(tmp_path, SpoolLimits(segment_bytes=4000)) as (running, arrived):
        for i in range(6):
            assert put(running, numbered(i, 2000))
        assert len(files(tmp_path)) == 4  # the lock, and three of two each
        for ticket in arrived:
            assert isinstance(ticket, Ticket)
            running.done(ticket)
        assert running.bytes_on_disk() == 0
        assert len(files(tmp_path)) == 2


def test_bounds_are_told(tmp_path: Path) -> None:
    with spool(tmp_path, SpoolLimits(max_bytes=10_000)) as (running, _):
        assert put(running, numbered(1, 5000))
        assert running.put(numbered(2, 5000), lambda _: None) == "spool_full"
    with spool(tmp_path, SpoolLimits(max_unwritten_bytes=1000)) as (running, _):
        assert running.put(numbered(1), lambda _: None) == "queue_bytes_full"


def test_a_disk_that_is_full_is_told_and_leaves_no_half_record(tmp_path: Path) -> None:
    with spool(tmp_path) as (running, arrived):
        assert put(running, numbered(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:  # a real write that really fails: the file may not grow
            resource.setrlimit(resource.RLIMIT_FSIZE, (running.bytes_on_disk() + 100, hard))
            assert not put(running, numbered(2, 5000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert running.trouble is not None
        assert os.strerror(errno.EFBIG) in running.trouble
        assert arrived[1] == numbered(2, 5000)
        assert put(running, numbered(3))
        assert running.trouble is None
        first = arrived[0]
        assert isinstance(first, Ticket)
        assert first.read() == numbered(1)
    counters = Counters()
    with spool(tmp_path):
        again = Spool(tmp_path, counters)
        assert [ticket.read().head.id for ticket in again.replay()] == ["id-1", "id-3"]
        again.leave()
    assert counters.snapshot()["spool_damage"] == {}


def test_damage_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    with spool(tmp_path) as (dead, _):
        for i in range(3):
            assert put(dead, numbered(i))
    (file,) = tmp_path.rglob("*.seg")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data[:-7])
    counters = Counters()
    again = Spool(tmp_path, counters)
    assert [ticket.read().head.id for ticket in again.replay()] == ["id-0"]
    assert counters.snapshot()["spool_damage"] == {"corrupt": 1, "torn": 1}
    again.leave()
