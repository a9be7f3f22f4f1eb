"""Everything of ours that runs beside a relayed request, and the ONE place where its failure is caught.

Whatever raises in there (deciding, tapping, offering) is logged and counted; the request goes
on as if it had never been watched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from spex_proxy.facts.exchange import Headers, RawExchange, RequestHead, Skipped
from spex_proxy.flows.relay import may_be_watched, new_request_id
from spex_proxy.ports.counters import Counters
from spex_proxy.wire.tap import Ending, Tap

_LOG = logging.getLogger(__name__)


class Watcher(Protocol):
    """All that the relay knows of the rest of the house: flows.relay.Watcher, or a test's."""

    def consider(self, head: RequestHead) -> Tap | None:
        """A tap if this request is to be watched."""
        ...

    @property
    def offer(self) -> Callable[[RawExchange | Skipped], bool]:
        """Takes what the tap saw; must not wait."""
        ...


class Bystander:
    """Watches one request, or nothing. No method of it raises."""

    __slots__ = ("_counters", "_started", "_tap", "_watcher", "request_id")

    def __init__(self, watcher: Watcher, counters: Counters, method: str, path: bytes, headers: Headers) -> None:
        self._watcher = watcher
        self._counters = counters
        self._tap: Tap | None = None
        self._started = 0.0
        self.request_id: str | None = None
        """Our id of the request, if it is watched."""
        self._contained("watch", self._begin, method, path, headers)

    @property
    def is_watching(self) -> bool:
        return self._tap is not None

    def request_chunk(self, chunk: bytes) -> None:
        if self._tap is not None:
            self._contained("tap", self._tap.request_chunk, chunk)

    def response_start(self, status: int, headers: Headers) -> None:
        if self._tap is not None:
            self._contained("tap", self._tap.response_start, status, headers)

    def response_chunk(self, chunk: bytes) -> None:
        if self._tap is not None:
            self._contained("tap", self._tap.response_chunk, chunk, time.monotonic() - self._started)

    def finish(self, ending: Ending) -> None:
        """The exchange is over; hand on what was seen. More than one call is harmless."""
        tap, self._tap = self._tap, None
        if tap is not None:
            self._contained("offer", self._hand_on, tap, ending)

    def _begin(self, method: str, path: bytes, headers: Headers) -> None:
        text = path.decode("ascii")
        if not may_be_watched(method, text):
            return
        head = RequestHead(new_request_id(), method, text, headers, datetime.now(UTC))
        self._started = time.monotonic()
        self._tap = self._watcher.consider(head)
        if self._tap is not None:
            self.request_id = head.id
            self._counters.add("watched_requests")

    def _hand_on(self, tap: Tap, ending: Ending) -> None:
        self._watcher.offer(tap.finish(ending, time.monotonic() - self._started))

    def _contained(self, place: str, work: Callable[..., Any], *args: Any) -> None:
        try:
            work(*args)
        except Exception:  # noqa: BLE001 - production goes on, whatever we have broken
            _LOG.exception("watching failed (%s); the request is relayed unwatched", place)
            tap, self._tap = self._tap, None
            if tap is not None:
                self._contained("tap", tap.discard)
            self._counters.add("faults", place)
