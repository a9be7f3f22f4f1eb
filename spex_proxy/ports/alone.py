"""One process at a time, by a lock that the operating system drops with the process that held it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spex_proxy.facts.errors import SettingsError


@contextmanager
def alone(path: Path, what_to_do: str) -> Iterator[None]:
    """Hold the lock for as long as the block lasts; the file holds the pid, for people.

    Raises SettingsError with `what_to_do` if another process has it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 20).decode("ascii", "replace").strip() or "unknown"
            raise SettingsError(f"process {holder} holds {path}: {what_to_do}") from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode("ascii"))
        yield
    finally:
        os.close(file)
