"""Story 1, second half: from bytes to the store, behind the client's back.

One thread offers (the relay's event loop), one thread drains. The queue between them is
bounded by count and by bytes; full means drop and count. Whatever fails here is counted
and never reaches the relay:

    offer -> queue -> parse -> choose -> trace -> save, a small batch at a time

With a spool (durable hand-off), what is offered goes to the disk first, and the queue holds where it stands
there. It waits until it is stored, for as long as that takes; a process that starts finds what others left.
At every moment, offered + replayed = skipped + dropped + stored + known + waiting.

The store is a callable, so this file knows nothing of SQL; so are telemetry and choice.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from spex_proxy.facts.exchange import Exchange, RawExchange, RequestHead, Skipped, TraceRef
from spex_proxy.flows.acting import Noted
from spex_proxy.flows.relay import Verdict
from spex_proxy.flows.saver import Saver, Work
from spex_proxy.flows.understand import Captured, Understanding
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.spool import Spool, Ticket

_ITEM_OVERHEAD = 2048
"""What an exchange costs beside its bodies: its headers and objects, roughly."""


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """How much may wait, how much is written at once, how long a failing store is tried again."""

    max_items: int = 1000
    max_bytes: int = 64 * 1024 * 1024
    batch: int = 64
    linger_s: float = 0.05
    """How long a batch waits for company. Fewer transactions, at most this much later in the store."""
    retry_delays_s: tuple[float, ...] = (0.1, 0.5, 2.0)
    """Waits between attempts to save; their number bounds the attempts."""


class Intake:
    """The bounded hand-off. `start()`, then `offer()` or `keep()` from one thread, then `close()`."""

    def __init__(
        self,
        *,
        save: Callable[[Sequence[Captured]], Mapping[str, int]],
        choose: Callable[[RawExchange, Exchange], Verdict],
        trace: Callable[[Captured], TraceRef | None],
        counters: Counters,
        limits: IntakeLimits | None = None,
        project: str = "default",
        spool: Spool | None = None,
        note: Callable[[RequestHead, Exchange], Noted] = lambda _head, _exchange: Noted(),
    ) -> None:
        """`save` stores a batch and says what became of it, how often (flows.save.Saved)."""
        self._understanding = Understanding(choose, trace, note, counters, project)
        self._counters = counters
        self._limits = limits or IntakeLimits()
        self._spool = spool
        self._queue: queue.SimpleQueue[RawExchange | Ticket | None] = queue.SimpleQueue()
        # Each number has one writing thread, so no lock is needed, and the relay never waits for one: taken is
        # the relay's, queued and lost the relay's or the spool's, replayed, done and finished the drain's.
        self._taken = self._lost = self._replayed = self._done = 0
        self._queued = self._queued_bytes = self._finished = self._finished_bytes = 0
        """Of those that wait in memory only."""
        self._heard = 0
        """Of those that the spool took: it has said what became of them."""
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._saver = Saver(
            save, counters, retry_delays_s=self._limits.retry_delays_s, most=2 * self._limits.batch,
            is_patient=spool is not None, abandoned=self._abandoned, finish=self._finish, one_more=self._one_more,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._drain, name="spex-intake", daemon=True)
        counters.watch("intake_queue_items", lambda: self.waiting)
        counters.watch("intake_queue_bytes", self._bytes_in_memory)

    @property
    def waiting(self) -> int:
        """Exchanges that were taken, or found, and are neither saved nor given up yet."""
        return self._taken + self._replayed - self._done - self._lost

    def start(self) -> None:
        if self._spool is not None:
            self._spool.start(self._arrived)
        self._thread.start()

    def offer(self, outcome: RawExchange | Skipped) -> bool:
        """Take it if there is room. Never waits; True if it will be worked on."""
        if isinstance(outcome, RawExchange) and self._spool is not None:
            return self.keep(outcome, lambda _: None)
        self._counters.add("offered_exchanges")
        if isinstance(outcome, Skipped):
            self._counters.add("skipped_exchanges", outcome.reason)
            return False
        if self._closing.is_set():
            return self._drop("closed")
        if (full := self._fullness(outcome)) is not None:
            return self._drop(full)
        self._taken += 1
        self._enqueue(outcome)
        return True

    def keep(self, raw: RawExchange, then: Callable[[bool], None]) -> bool:
        """With a spool: write it there, and say when that is done. Never waits (flows.relay.Hold.keep)."""
        assert self._spool is not None
        self._counters.add("offered_exchanges")
        if self._closing.is_set():
            return self._drop("closed")
        self._taken += 1
        refused = self._spool.put(raw, then)
        if refused is not None:
            self._taken -= 1
            return self._drop(refused)
        return True

    def close(self, deadline_s: float) -> int:
        """Drain for at most `deadline_s`; returns how many were left.

        What is left in memory is dropped and counted; what is left in the spool stays there for the next start.
        """
        deadline = time.monotonic() + deadline_s
        self._closing.set()
        if self._spool is not None:
            self._spool.close(deadline_s)
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))
        unheard = 0 if self._spool is None else self._taken - self._heard
        left, in_memory = self.waiting, self._queued - self._finished + unheard
        if in_memory and not self._abandoned.is_set():
            self._counters.add("dropped_exchanges", "shutdown", in_memory)
            self._lost += in_memory
        if not self._abandoned.is_set() and self._spool is not None:
            self._spool.leave()
        self._abandoned.set()
        return left

    def _fullness(self, raw: RawExchange) -> str | None:
        """Why there is no room in memory; None if there is."""
        if self._queued - self._finished >= self._limits.max_items:
            return "queue_full"
        if self._queued_bytes - self._finished_bytes + _size(raw) > self._limits.max_bytes:
            return "queue_bytes_full"
        return None

    def _enqueue(self, raw: RawExchange) -> None:
        self._queued += 1
        self._queued_bytes += _size(raw)
        self._queue.put(raw)

    def _arrived(self, item: RawExchange | Ticket) -> None:
        """From the spool's thread: it is on disk; or it could not be written, then memory is what is left."""
        self._heard += 1
        if isinstance(item, Ticket):
            self._queue.put(item)
        elif (full := self._fullness(item)) is not None:
            self._lost += 1
            self._drop(full)
        else:
            self._enqueue(item)

    def _bytes_in_memory(self) -> int:
        unwritten = self._spool.unwritten_bytes if self._spool is not None else 0
        return self._queued_bytes - self._finished_bytes + unwritten

    def _drop(self, reason: str, count: int = 1) -> bool:
        self._counters.add("dropped_exchanges", reason, count)
        return False

    # ---- below: the drain thread only

    def _drain(self) -> None:
        if self._spool is not None:
            self._understanding.contained("replay", "start", self._replay)
        is_last = False
        while not (is_last or self._abandoned.is_set()):
            items, is_last = self._next_batch()
            batch = [work for item in items if (work := self._work_on(item)) is not None]
            if batch:
                self._saver.store(batch)

    def _replay(self) -> None:
        assert self._spool is not None
        for ticket in self._spool.replay():
            self._replayed += 1
            self._counters.add("replayed_exchanges")
            self._queue.put(ticket)

    def _next_batch(self) -> tuple[list[RawExchange | Ticket], bool]:
        """Wait for one, then a little longer for more. True when the queue was closed."""
        batch: list[RawExchange | Ticket] = []
        deadline = 0.0
        while len(batch) < self._limits.batch:
            try:
                wait = max(0.0, deadline - time.monotonic()) if batch else None
                item = self._queue.get(timeout=wait)
            except queue.Empty:
                break
            if item is None:
                return batch, True
            if not batch:
                deadline = time.monotonic() + self._limits.linger_s
            batch.append(item)
        return batch, False

    def _work_on(self, item: RawExchange | Ticket) -> Work | None:
        """What is to be stored of it; None if nothing is, and then it is done with."""
        captured = None
        raw = self._understanding.contained("spool", "unread", item.read) if isinstance(item, Ticket) else item
        if raw is None:
            self._drop("spool_unreadable")
        else:
            captured = self._understanding.capture(raw)
        if captured is None:
            self._finish(item)
            return None
        return Work(item, captured)

    def _finish(self, item: RawExchange | Ticket) -> None:
        """Saved or given up."""
        if isinstance(item, RawExchange):
            self._finished += 1
            self._finished_bytes += _size(item)
        elif (spool := self._spool) is not None:
            self._understanding.contained("spool", "done", lambda: spool.done(item))
        self._done += 1

    def _one_more(self) -> Work | None:
        """Another exchange, if one waits."""
        try:
            item = self._queue.get_nowait()
        except queue.Empty:
            return None
        if item is None:
            self._queue.put(None)
            return None
        return self._work_on(item)


def _size(raw: RawExchange) -> int:
    return len(raw.request_body) + len(raw.response_body) + _ITEM_OVERHEAD
