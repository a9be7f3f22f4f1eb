"""The spool of one process: a thread that writes, group by group, and what dead processes left.

One fsync makes a whole group safe: while it runs, the next group gathers. Whoever puts something in never waits;
whoever takes it out reads it from the disk again (from the system's memory, nearly always), so that what waits for
a store that is away for an hour waits on the disk.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spex_proxy.facts.exchange import RawExchange
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.spool.records import HEADER_BYTES, MARK_BYTES, Record, frame, pack, scan, secrets_of
from spex_proxy.ports.spool.segments import Folder, Segment, Ticket

_LOG = logging.getLogger(__name__)

LEAVE_S = 1.0
Then = Callable[[bool], None]
"""Told once: True when the exchange is on disk, False when it could not be written."""


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Most bytes on disk, most that wait to be written, when a file is full, most exchanges of one sync."""

    max_bytes: int = 1 << 30
    max_unwritten_bytes: int = 64 * 1024 * 1024
    segment_bytes: int = 16 * 1024 * 1024
    group: int = 256


class Spool:
    """`start()`, then `put()` from one thread and `replay()` and `done()` from another, then `close()`."""

    def __init__(self, path: Path, counters: Counters, limits: SpoolLimits | None = None) -> None:
        self.path = path
        self._counters = counters
        self._limits = limits or SpoolLimits()
        self._queue: queue.SimpleQueue[tuple[RawExchange, Then] | None] = queue.SimpleQueue()
        # one writing thread each, as in flows.intake
        self._put_bytes = self._written_bytes = 0
        self._guard = threading.Lock()
        """Of everything below; held over a sync, so never asked for by `put`."""
        self._own: Folder | None = None
        self._current: Segment | None = None
        self._segments: list[Segment] = []
        self._adopted: dict[Path, Folder] = {}
        self._arrived: Callable[[RawExchange | Ticket], None] = lambda _: None
        self.trouble: str | None = None
        """Why nothing can be written, in words; None if the last group was."""
        self._thread = threading.Thread(target=self._write, name="spex-spool", daemon=True)
        counters.watch("spool_items", lambda: sum(s.waiting for s in tuple(self._segments)))
        counters.watch("spool_bytes", self.bytes_on_disk)

    def start(self, arrived: Callable[[RawExchange | Ticket], None]) -> None:
        """`arrived` is told of each exchange once it was written (a Ticket), or once that failed (as it was put)."""
        self._arrived = arrived
        self._thread.start()

    def bytes_on_disk(self) -> int:
        return sum(segment.size for segment in tuple(self._segments))

    @property
    def unwritten_bytes(self) -> int:
        return self._put_bytes - self._written_bytes

    def put(self, raw: RawExchange, then: Then) -> str | None:
        """Never waits. None, and `then` will be called from the spool's thread; or why it was not taken."""
        size = _size(raw)
        if self.unwritten_bytes + size > self._limits.max_unwritten_bytes:
            return "queue_bytes_full"
        if self.bytes_on_disk() + self.unwritten_bytes + size > self._limits.max_bytes:
            return "spool_full"
        self._put_bytes += size
        self._queue.put((raw, then))
        return None

    def close(self, deadline_s: float) -> None:
        """Write what waits, for at most so long. `put` no more; `done` may still be called, and `leave` is next."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(deadline_s)

    def leave(self) -> None:
        """Give up the locks: what is left belongs to whoever starts next. While a sync hangs they end with the
        process."""
        if not self._guard.acquire(timeout=LEAVE_S):
            _LOG.error("the disk of the spool %s does not answer; it is left as it is", self.path)
            return
        try:
            if self._current is not None and not self._current.waiting:
                self._drop(self._current)
            for folder in (self._own, *self._adopted.values()):
                if folder is not None:
                    folder.leave()
            for segment in self._segments:
                os.close(segment.fd)
            self._own = self._current = None
            self._segments, self._adopted = [], {}
        finally:
            self._guard.release()

    def done(self, ticket: Ticket) -> None:
        """It needs the disk no more: it is stored, or given up. Raises OSError if the file can't be emptied or removed;
        then nothing more is written to it, and whoever starts next finds that it is known."""
        with self._guard:
            segment = ticket.segment
            if segment not in self._segments:  # left meanwhile
                return
            segment.waiting -= 1
            if segment.waiting:
                return
            if segment is not self._current:
                self._drop(segment)
                return
            try:
                segment.empty()
            except OSError:
                self._current = None
                self._forget(segment)
                raise

    # ---- what dead processes left

    def replay(self) -> Iterator[Ticket]:
        """Exchanges in the spools of processes that ended before they were stored."""
        for path in sorted(self.path.glob("*")) if self.path.is_dir() else ():
            if len(path.name) != 2 * MARK_BYTES or (folder := Folder.take(path)) is None:
                continue
            self._adopted[path] = folder
            for file in folder.segments():
                yield from self._read_again(file, folder)
            self._leave_if_empty(folder)

    def _read_again(self, file: Path, folder: Folder) -> Iterator[Ticket]:
        try:
            segment = Segment(file, folder.mark, os.open(file, os.O_RDONLY | os.O_CLOEXEC))
            data = file.read_bytes()
        except OSError as error:
            _LOG.error("%s can't be read: %s", file, error)
            self._counters.add("spool_damage", "corrupt")
            return
        segment.size = len(data)
        found = list(scan(data, folder.mark))
        tickets = [Ticket(segment, r.start, r.length) for r in found if isinstance(r, Record)]
        for damage in found:
            if isinstance(damage, str):
                self._counters.add("spool_damage", damage)
                _LOG.error("%s holds a record that is %s", file, damage)
        with self._guard:
            segment.waiting = len(tickets)
            self._segments = [*self._segments, segment]
            if not tickets:
                self._drop(segment)
        yield from tickets

    def _leave_if_empty(self, folder: Folder) -> None:
        if folder.path in self._adopted and not folder.segments():
            del self._adopted[folder.path]
            folder.leave()

    def _drop(self, segment: Segment) -> None:
        """Nothing in it waits any more. The guard is held."""
        self._forget(segment)
        segment.remove()
        folder = self._adopted.get(segment.path.parent)
        if folder is not None:
            self._leave_if_empty(folder)

    def _forget(self, segment: Segment) -> None:
        self._segments = [other for other in self._segments if other is not segment]

    # ---- below: the spool's thread only

    def _write(self) -> None:
        is_last = False
        while not is_last:
            group, is_last = self._next_group()
            if group:
                self._write_group(group)

    def _next_group(self) -> tuple[list[tuple[RawExchange, Then]], bool]:
        group: list[tuple[RawExchange, Then]] = []
        while len(group) < self._limits.group:
            try:
                item = self._queue.get(block=not group)
            except queue.Empty:
                break
            if item is None:
                return group, True
            group.append(item)
        return group, False

    def _write_group(self, group: list[tuple[RawExchange, Then]]) -> None:
        try:
            arrived: list[RawExchange | Ticket] = list(self._commit([raw for raw, _ in group]))
            self.trouble = None
        except Exception as error:  # noqa: BLE001 - disk full, read-only, gone: whatever it is, the answers go out
            if self.trouble is None:
                _LOG.exception("the spool can't be written; answers go out, exchanges wait in memory")
            self.trouble = f"the spool {self.path} can't be written: {error}"
            self._counters.add("faults", "spool")
            arrived = [raw for raw, _ in group]
        for (raw, then), item in zip(group, arrived, strict=True):
            self._written_bytes += _size(raw)
            self._arrived(item)
            then(isinstance(item, Ticket))

    def _commit(self, raws: list[RawExchange]) -> list[Ticket]:
        """Write and sync. Raises OSError, and then nothing of it is in the file."""
        payloads = [pack(raw) for raw in raws]
        with self._guard:
            segment = self._writable()
            tickets, position = [], segment.size
            pieces: list[bytes] = []
            for raw, payload in zip(raws, payloads, strict=True):
                pieces += (frame(segment.mark, payload), payload)
                tickets.append(Ticket(segment, position + HEADER_BYTES, len(payload), secrets_of(raw)))
                position += HEADER_BYTES + len(payload)
            try:
                segment.append(pieces)
            except OSError:
                self._retire(segment)
                raise
            segment.waiting += len(tickets)
            return tickets

    def _writable(self) -> Segment:
        if self._current is not None and self._current.size >= self._limits.segment_bytes:
            self._retire(self._current)
        if self._current is None:
            if self._own is None:
                self._own = Folder.make(self.path)
            self._current = self._own.new_segment()
            self._segments = [*self._segments, self._current]
        return self._current

    def _retire(self, segment: Segment) -> None:
        self._current = None
        if not segment.waiting:
            self._drop(segment)


def _size(raw: RawExchange) -> int:
    """About what it takes, in memory and on disk."""
    return len(raw.request_body) + len(raw.response_body) + 2048
