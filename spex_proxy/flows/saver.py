"""A batch of exchanges is stored: again after a while if the store fails, then one by one.

In the intake's drain thread. The store is a callable, so this file knows nothing of SQL.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from spex_proxy.facts.exchange import RawExchange
from spex_proxy.flows.understand import Captured
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.spool import Ticket

_LOG = logging.getLogger(__name__)

_FAILURES_THAT_MEAN_DOWN = 3
"""One item that can't be saved spoils its batch; so many in a row mean that the store itself is down."""
_STRIKES = 3
"""So many failures of an exchange from the spool, each while the store took others, mean that it is bad."""


@dataclass(frozen=True, slots=True)
class Work:
    """An exchange on its way through the drain."""

    item: RawExchange | Ticket
    captured: Captured


class Saver:
    """`store` a batch. Each exchange of it is `finish`ed: stored, or given up and counted."""

    def __init__(
        self,
        save: Callable[[Sequence[Captured]], Mapping[str, int]],
        counters: Counters,
        *,
        retry_delays_s: Sequence[float],
        most: int,
        is_patient: bool,
        abandoned: threading.Event,
        finish: Callable[[RawExchange | Ticket], None],
        one_more: Callable[[], Work | None],
    ) -> None:
        """`most`: exchanges that are held at once, those that failed among them. `is_patient`: what waits is on a disk,
        and may wait for as long as the store is away. `abandoned`: nobody wants it stored any more. `one_more`:
        another exchange, if one waits."""
        self._save = save
        self._counters = counters
        self._retry_delays_s = retry_delays_s
        self._most = most
        self._is_patient = is_patient
        self._abandoned = abandoned
        self._finish = finish
        self._one_more = one_more

    def store(self, batch: list[Work]) -> None:
        """Save a batch; again after a while if the store fails; then one by one, so that one bad exchange does
        not cost the others. What then fails is dropped. From a spool it waits on while the store is away, and is
        dropped only when it has failed several times though the store took something else."""
        strikes: Counter[str] = Counter()
        while not self._abandoned.is_set():
            if any(self._try_save(batch, delay) for delay in (0.0, *self._retry_delays_s)):
                return
            batch = self._one_by_one(batch, strikes)
            if self._abandoned.is_set() or not batch:
                return  # close() has counted what is in memory
            is_lost = [not self._is_patient or strikes[work.captured.exchange.id] >= _STRIKES for work in batch]
            for work, lost in zip(batch, is_lost, strict=True):
                if lost:
                    self._counters.add("dropped_exchanges", "save_failed")
                    self._finish(work.item)
            batch = [work for work, lost in zip(batch, is_lost, strict=True) if not lost]
            if not batch:
                return
            # whether the store takes another one shows whose fault the failures are
            if len(batch) < self._most and (another := self._one_more()) is not None:
                batch.append(another)

    def _one_by_one(self, batch: list[Work], strikes: Counter[str]) -> list[Work]:
        """Those that could not be saved alone; a strike for each that failed before another one was saved."""
        waiting, failed = deque(batch), list[Work]()
        in_a_row = 0
        while waiting and in_a_row < _FAILURES_THAT_MEAN_DOWN + self._is_patient:
            # before a spool's exchanges are left to wait, the newest is tried: the others may all be bad
            one = waiting.pop() if in_a_row == _FAILURES_THAT_MEAN_DOWN else waiting.popleft()
            if len(batch) > 1 and self._try_save([one], 0.0):
                in_a_row = 0
                strikes.update(work.captured.exchange.id for work in failed)
            else:
                in_a_row += 1
                failed.append(one)
        return failed + list(waiting)

    def _try_save(self, batch: list[Work], delay_s: float) -> bool:
        if delay_s:
            self._counters.add("save_retries")
            self._abandoned.wait(delay_s)
        if self._abandoned.is_set():
            return False
        try:
            saved = Counter(self._save([work.captured for work in batch]))
        except Exception as error:  # noqa: BLE001 - disk full, locked, unreachable: whatever it is, it is counted
            self._counters.add("faults", "save")
            _LOG.warning("%d exchanges could not be saved: %s", len(batch), error)
            return False
        if self._abandoned.is_set():
            return False  # too late: close() has counted them
        self._counters.add("stored_exchanges", by=len(batch) - saved["known"])
        self._counters.add("known_exchanges", by=saved["known"])
        self._counters.add("explain_chosen", by=saved["explain"])
        self._counters.add("explain_capped", by=saved["capped"])
        for work in batch:
            self._finish(work.item)
        return True
