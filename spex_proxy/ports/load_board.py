"""The load board: what production is doing, from the relays of one host to the workers of that host.

A small file that all of them map into memory. Each relay process has a slot that it alone writes, on its event
loop, without a lock or a system call; a worker reads all slots. Every number is one aligned 64-bit word, and times
are of the host's monotonic clock, which containers share, while process ids mean nothing in another container.

A slot that was not touched for `STALE_S` is an unknown, so nobody may say that production is idle; after `GONE_S`
its relay is taken for dead, and the slot may be used again.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.load import BUCKETS, Gaps, Production, Unseen, bucket_of, together

STALE_S = 2.0
GONE_S = 10.0
SLOTS = 64
"""Relay processes of one host."""

_VERSION = 0x5350_4558_0001
_WORDS = 128  # of a slot
_SIZE = 8 * _WORDS * (1 + SLOTS)
_SEEN, _IN_FLIGHT, _AWAITING, _ARRIVALS, _GAPS = 0, 1, 2, 3, 8
_BILLION = 1_000_000_000


class Board:
    """The file, mapped."""

    def __init__(self, path: Path, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Makes the file if it is not there. Raises SettingsError if it can't be had."""
        self.path = path
        self._clock = clock
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_size < _SIZE:
                    os.ftruncate(descriptor, _SIZE)
                self._map = mmap.mmap(descriptor, _SIZE)
                self._words = memoryview(self._map).cast("q")
                self._check()
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # the map holds a copy of the descriptor, and so the lock
                os.close(descriptor)
        except OSError as error:
            raise SettingsError(f"the load board {path} can't be used: {error}") from error

    def _check(self) -> None:
        if self._words[0] == 0:
            self._words[0] = _VERSION
        elif self._words[0] != _VERSION:
            self.close()
            raise SettingsError(f"{self.path} is no load board of this version; delete it while nothing runs")

    def close(self) -> None:
        self._words.release()
        try:
            self._map.close()
        except BufferError:
            pass  # a slot is still held: what is mapped goes with it

    # ---- writing

    def slot(self) -> Slot:
        """A slot for this process. Raises SettingsError if all are taken."""
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            now = self._clock()
            for number in range(1, SLOTS + 1):
                words = self._words[number * _WORDS : (number + 1) * _WORDS]
                if not words[_SEEN] or _age_s(words[_SEEN], now) > GONE_S:
                    words[:] = memoryview(bytes(8 * _WORDS)).cast("q")
                    words[_SEEN] = now
                    return Slot(words, self._clock)
        raise SettingsError(f"{SLOTS} relay processes use {self.path} already")

    # ---- reading

    def read(self) -> Production | Unseen:
        """What all relays of this host know together."""
        now = self._clock()
        readings = []
        for start in range(_WORDS, _SIZE // 8, _WORDS):
            seen = self._words[start + _SEEN]
            if not seen:
                continue
            age = _age_s(seen, now)
            if STALE_S < age <= GONE_S:
                return Unseen(f"a relay has not been heard of for {age:.1f} s")
            if age <= STALE_S:
                readings.append(self._production(start))
        return together(readings) if readings else Unseen(f"no relay writes to the load board {self.path}")

    def _production(self, start: int) -> Production:
        words = self._words
        return Production(
            words[start + _IN_FLIGHT],
            words[start + _AWAITING],
            words[start + _ARRIVALS],
            Gaps(tuple(words[start + _GAPS : start + _GAPS + BUCKETS])),
        )


def _age_s(seen_ns: int, now_ns: int) -> float:
    """A time in the future is of a boot before this one."""
    return (now_ns - seen_ns) / _BILLION if seen_ns <= now_ns else float("inf")


class Slot:
    """What one relay process says. Of one event loop; no method raises or waits."""

    def __init__(self, words: memoryview, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._words = words
        self._clock = clock

    def tick(self) -> None:
        """Still here. At least once a second."""
        self._words[_SEEN] = self._clock()

    def arrived(self) -> Pulse:
        """A request of production has arrived."""
        words = self._words
        words[_AWAITING] += 1
        words[_IN_FLIGHT] += 1
        words[_ARRIVALS] += 1
        words[_SEEN] = self._clock()
        return Pulse(self)

    def close(self) -> None:
        """This relay has ended; what its last requests still say goes nowhere."""
        self._words[_SEEN] = 0
        self._words.release()
        self._words = memoryview(bytearray(8 * _WORDS)).cast("q")

    def _first(self) -> int:
        self._words[_AWAITING] -= 1
        return self._clock()

    def _gap(self, last_ns: int) -> int:
        now = self._clock()
        self._words[_GAPS + bucket_of((now - last_ns) / _BILLION)] += 1
        return now

    def _ended(self, *, is_unanswered: bool) -> None:
        self._words[_IN_FLIGHT] -= 1
        if is_unanswered:
            self._words[_AWAITING] -= 1


class Pulse:
    """One request of production, from its arrival to the end of its answer."""

    __slots__ = ("_last_ns", "_slot")

    def __init__(self, slot: Slot) -> None:
        self._slot: Slot | None = slot
        self._last_ns = 0

    def beat(self) -> None:
        """A piece of the answer's body went to the client."""
        if self._slot is not None:
            self._last_ns = self._slot._gap(self._last_ns) if self._last_ns else self._slot._first()

    def end(self) -> None:
        """However it ended. More than one call is harmless."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot._ended(is_unanswered=not self._last_ns)
