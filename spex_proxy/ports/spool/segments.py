"""The files of a spool, and whose they are.

    SPOOL/<32 hex digits>/lock            held by the process that owns the folder, for as long as it lives
    SPOOL/<32 hex digits>/00000001.seg    records, appended; the folder's name is their mark

A folder whose lock can be taken belonged to a process that is dead. A file is emptied or removed once every
exchange in it is stored, so there are no marks of what is done: what a crash leaves is offered to the store
again, and the store recognises what it has.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from spex_proxy.facts.exchange import Headers, RawExchange
from spex_proxy.ports.spool.records import HEADER_BYTES, MARK_BYTES, is_whole, unpack, with_secrets

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has only the second


class Folder:
    """One process's files, and the lock that says so."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.mark = bytes.fromhex(path.name)
        self._lock = lock
        self._made = 0

    @classmethod
    def make(cls, spool: Path) -> Self:
        """A new one. Raises OSError."""
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            path = spool / secrets.token_hex(MARK_BYTES)
            path.mkdir(mode=0o700)
            folder = cls.take(path, is_new=True)
            if folder is not None:
                sync_folder(path)
                sync_folder(spool)
                return folder

    @classmethod
    def take(cls, path: Path, *, is_new: bool = False) -> Self | None:
        """The folder at `path` if nobody has it; its files stay as they are."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if is_new else 0)
        try:
            lock = os.open(path / "lock", flags, 0o600)
        except OSError:  # being made, or being removed
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return cls(path, lock)
        except OSError:  # somebody has it
            pass
        os.close(lock)
        return None

    def new_segment(self) -> Segment:
        """An empty file that survives a crash of the machine. Raises OSError."""
        self._made += 1
        path = self.path / f"{self._made:08d}.seg"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            sync_folder(self.path)
        except OSError:
            os.close(fd)
            raise
        return Segment(path, self.mark, fd)

    def segments(self) -> list[Path]:
        return sorted(self.path.glob("*.seg"))

    def leave(self) -> None:
        """Let go of the lock; remove the folder if nothing is in it any more."""
        if not self.segments():
            try:
                (self.path / "lock").unlink(missing_ok=True)
                self.path.rmdir()
            except OSError:  # whoever looks next finds it empty
                pass
        os.close(self._lock)


@dataclass(eq=False)
class Segment:
    """One file. Not safe for several threads by itself."""

    path: Path
    mark: bytes
    fd: int
    size: int = 0
    waiting: int = 0
    """Exchanges in it that are not stored yet."""

    def append(self, pieces: Sequence[bytes]) -> None:
        """All of it, on the disk; or nothing, and OSError.

        After a failed sync the system may have dropped what was written before; so none of these bytes counts.
        """
        data = memoryview(b"".join(pieces))
        before = self.size
        try:
            while data:
                data = data[os.write(self.fd, data) :]
            _sync(self.fd)
        except OSError:
            os.ftruncate(self.fd, before)
            raise
        self.size = before + sum(map(len, pieces))

    def empty(self) -> None:
        """Everything in it is stored: leave no content behind."""
        os.ftruncate(self.fd, 0)
        self.size = 0

    def remove(self) -> None:
        self.size = 0
        os.close(self.fd)
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Ticket:
    """An exchange on disk."""

    segment: Segment = field(repr=False)
    start: int
    """Of its payload."""
    length: int
    hidden: Headers = field(default=(), repr=False)
    """Headers that only memory knows; none after a crash."""

    def read(self) -> RawExchange:
        """Raises OSError, or ValueError if it is not what was written."""
        data = os.pread(self.segment.fd, HEADER_BYTES + self.length, self.start - HEADER_BYTES)
        header, payload = data[:HEADER_BYTES], data[HEADER_BYTES:]
        if len(payload) != self.length or not is_whole(self.segment.mark, header, payload):
            raise ValueError("a record of the spool has changed")
        return with_secrets(unpack(payload), self.hidden)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a crash of the machine."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
