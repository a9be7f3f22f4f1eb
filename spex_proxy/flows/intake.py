"""Story 1, second half: from bytes to the store, behind the client's back.

One thread offers (the relay's event loop), one thread drains. The queue between them is
bounded by count and by bytes; full means drop and count. Whatever fails here is counted
and never reaches the relay:

    offer -> queue -> parse -> choose -> trace -> save, a small batch at a time

The store is a callable, so this file knows nothing of SQL; so are telemetry and choice.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from spex_proxy.facts.exchange import Exchange, RawExchange, RequestHead, Skipped, TraceRef
from spex_proxy.flows.relay import Verdict
from spex_proxy.ports.counters import Counters
from spex_proxy.wire import chat

T = TypeVar("T")
_LOG = logging.getLogger(__name__)

_ITEM_OVERHEAD = 2048
"""What an exchange costs beside its bodies: its headers and objects, roughly."""

_FAILURES_THAT_MEAN_DOWN = 3
"""One item that can't be saved spoils its batch; so many in a row mean that the store itself is down."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One exchange, ready to be stored. Holds no headers: they may carry keys."""

    exchange: Exchange
    verdict: Verdict
    request_body: bytes
    """The client's bytes as they came."""
    traceparent: str | None
    """The caller's trace context, W3C, as it came."""
    tracestate: str | None
    trace: TraceRef | None = None
    """The request's own span, once it has been made."""


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
    """The bounded hand-off. `start()`, then `offer()` from one thread, then `close()`."""

    def __init__(
        self,
        *,
        save: Callable[[Sequence[Captured]], Mapping[str, int]],
        choose: Callable[[RawExchange, Exchange], Verdict],
        trace: Callable[[Captured], TraceRef | None],
        counters: Counters,
        limits: IntakeLimits | None = None,
        project: str = "default",
    ) -> None:
        """`save` stores a batch and says what became of it, how often (flows.save.Saved)."""
        self._save = save
        self._choose = choose
        self._trace = trace
        self._counters = counters
        self._limits = limits or IntakeLimits()
        self._project = project
        self._queue: queue.SimpleQueue[RawExchange | None] = queue.SimpleQueue()
        # Each number has one writing thread (offered: the relay's, done: the drain's), so no lock is
        # needed, and the relay never waits for one.
        self._offered = self._offered_bytes = 0
        self._done = self._done_bytes = 0
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="spex-intake", daemon=True)
        counters.watch("intake_queue_items", lambda: self.waiting)
        counters.watch("intake_queue_bytes", lambda: self._offered_bytes - self._done_bytes)

    @property
    def waiting(self) -> int:
        """Exchanges that were taken and are neither saved nor given up yet."""
        return self._offered - self._done

    def start(self) -> None:
        self._thread.start()

    def offer(self, outcome: RawExchange | Skipped) -> bool:
        """Take it if there is room. Never waits; True if it will be worked on."""
        if isinstance(outcome, Skipped):
            self._counters.add("skipped_exchanges", outcome.reason)
            return False
        size = _size(outcome)
        if self._closing.is_set():
            return self._drop("closed")
        if self.waiting >= self._limits.max_items:
            return self._drop("queue_full")
        if self._offered_bytes - self._done_bytes + size > self._limits.max_bytes:
            return self._drop("queue_bytes_full")
        self._offered += 1
        self._offered_bytes += size
        self._queue.put(outcome)
        return True

    def close(self, deadline_s: float) -> int:
        """Drain for at most `deadline_s`; returns how many were left, which are dropped and counted."""
        self._closing.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(deadline_s)
        left = self.waiting
        if left and not self._abandoned.is_set():
            self._counters.add("dropped_exchanges", "shutdown", left)
        self._abandoned.set()
        return left

    def _drop(self, reason: str, count: int = 1) -> bool:
        self._counters.add("dropped_exchanges", reason, count)
        return False

    # ---- below: the drain thread only ----

    def _drain(self) -> None:
        while not self._abandoned.is_set():
            raws, is_last = self._next_batch()
            captured = [c for raw in raws if (c := self._capture(raw)) is not None]
            if captured:
                self._store(captured)
            self._done_bytes += sum(map(_size, raws))
            self._done += len(raws)
            if is_last:
                return

    def _next_batch(self) -> tuple[list[RawExchange], bool]:
        """Wait for one, then a little longer for more. True when the queue was closed."""
        batch: list[RawExchange] = []
        deadline = 0.0
        while len(batch) < self._limits.batch:
            try:
                wait = max(0.0, deadline - time.monotonic()) if batch else None
                raw = self._queue.get(timeout=wait)
            except queue.Empty:
                break
            if raw is None:
                return batch, True
            if not batch:
                deadline = time.monotonic() + self._limits.linger_s
            batch.append(raw)
        return batch, False

    def _capture(self, raw: RawExchange) -> Captured | None:
        """Understand one exchange, decide on it, and give it its span."""
        exchange = self._contained("parse", raw, lambda: chat.parse(raw, self._project))
        if exchange is None:
            self._drop("fault")
            return None
        if isinstance(exchange, Skipped):
            self._counters.add("skipped_exchanges", exchange.reason)
            return None
        # Without a verdict, or without a span, an exchange is still worth keeping.
        understood = exchange
        verdict = self._contained("choose", raw, lambda: self._choose(raw, understood))
        verdict = verdict or Verdict(False, "error", 0.0, raw.capture_probability)
        if not verdict.is_kept:
            self._counters.add("skipped_exchanges", "not_sampled")
            return None
        self._counters.add("captured_exchanges")
        if exchange.obstacle is not None:
            self._counters.add("unexplainable_exchanges", exchange.obstacle)
        exchange = dataclasses.replace(exchange, capture_probability=verdict.capture_probability)
        captured = Captured(exchange, verdict, raw.request_body, *_trace_context(raw.head))
        span = self._contained("trace", raw, lambda: self._trace(captured))
        return dataclasses.replace(captured, trace=span)

    def _contained(self, place: str, raw: RawExchange, work: Callable[[], T]) -> T | None:
        """Do it; a bug (ours, or a plugin's) costs one exchange one thing, never the thread."""
        try:
            return work()
        except Exception:  # noqa: BLE001 - see above
            self._counters.add("faults", place)
            _LOG.exception("request %s: %s failed; production was served", raw.head.id, place)
            return None

    def _store(self, batch: list[Captured]) -> None:
        """Save a batch; again after a while if the store fails; then one by one, so that one bad
        exchange does not cost the others; then drop what is left."""
        if any(self._try_save(batch, delay) for delay in (0.0, *self._limits.retry_delays_s)):
            return
        failures = 0
        for position, one in enumerate(batch):
            if self._abandoned.is_set():
                return  # close() has counted them
            if failures >= _FAILURES_THAT_MEAN_DOWN:
                self._drop("save_failed", len(batch) - position)
                return
            if len(batch) > 1 and self._try_save([one], 0.0):
                failures = 0
            elif not self._abandoned.is_set():
                failures += 1
                self._drop("save_failed")

    def _try_save(self, batch: list[Captured], delay_s: float) -> bool:
        if delay_s:
            self._counters.add("save_retries")
            self._abandoned.wait(delay_s)
        if self._abandoned.is_set():
            return False
        try:
            saved = Counter(self._save(batch))
        except Exception as error:  # noqa: BLE001 - disk full, locked, unreachable: whatever it is, it is counted
            self._counters.add("faults", "save")
            _LOG.warning("%d exchanges could not be saved: %s", len(batch), error)
            return False
        self._counters.add("stored_exchanges", by=len(batch))
        self._counters.add("explain_chosen", by=saved["explain"])
        self._counters.add("explain_capped", by=saved["capped"])
        return True


def _size(raw: RawExchange) -> int:
    return len(raw.request_body) + len(raw.response_body) + _ITEM_OVERHEAD


def _trace_context(head: RequestHead) -> tuple[str | None, str | None]:
    """The caller's traceparent and tracestate. W3C: tracestate may come in several lines, traceparent not."""
    parents = [value for name, value in head.headers if name == b"traceparent"]
    states = [value for name, value in head.headers if name == b"tracestate"]
    parent = parents[0].decode("latin-1") if len(parents) == 1 else None
    return parent, b",".join(states).decode("latin-1") if states and parent else None
