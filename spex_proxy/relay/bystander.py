"""Everything of ours that runs beside a relayed request, and the ONE place where its failure is caught.

Whatever raises in there (deciding, tapping, offering) is logged and counted; the request goes
on as if it had never been watched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from spex_proxy.facts.exchange import Headers, RawExchange, RequestHead, Skipped
from spex_proxy.flows.relay import Hold, may_be_watched, new_request_id
from spex_proxy.ports.counters import Counters
from spex_proxy.relay.heads import Request, pairs
from spex_proxy.relay.held import Held
from spex_proxy.wire.rewriting import Rewriter
from spex_proxy.wire.tap import Ending, Tap

_LOG = logging.getLogger(__name__)


class Watcher(Protocol):
    """All that the relay knows of the rest of the house: flows.relay.Watcher, or a test's."""

    def passes_by(self, request_id: str, path: str) -> bool:
        """Whether `consider` says None whatever the header lines say, x-spex-* apart."""
        ...

    def consider(self, head: RequestHead) -> Tap | None:
        """A tap if this request is to be watched."""
        ...

    @property
    def offer(self) -> Callable[[RawExchange | Skipped], bool]:
        """Takes what the tap saw; must not wait."""
        ...

    @property
    def hold(self) -> Hold | None:
        """Durable hand-off; None lets every answer go out as it comes."""
        ...


def watch(watcher: Watcher, counters: Counters, request: Request) -> Bystander | None:
    """Who watches this request; None if nobody does, which is the usual case and costs next to nothing."""
    path = request.target.partition(b"?")[0].decode("ascii")
    if not may_be_watched(request.method.decode("ascii"), path):
        return None
    beside = Bystander(watcher, counters)
    beside.begin(request, path)
    return beside if beside.is_watching else None


class Bystander:
    """Watches one request. No method of it raises."""

    __slots__ = ("_counters", "_started", "_tap", "_watcher", "request_id")

    def __init__(self, watcher: Watcher, counters: Counters) -> None:
        self._watcher = watcher
        self._counters = counters
        self._tap: Tap | None = None
        self._started = 0.0
        self.request_id = ""
        """Our id of the request, once it is watched."""

    @property
    def is_watching(self) -> bool:
        return self._tap is not None

    @property
    def rewriter(self) -> Rewriter | None:
        """Who may change this exchange; None but under a rule with `exact_token_ids`."""
        return None if self._tap is None else self._tap.rewriter

    def begin(self, request: Request, path: str) -> None:
        try:
            request_id = new_request_id()
            if not request.asks_us and self._watcher.passes_by(request_id, path):
                return
            method, lines = request.method.decode("ascii"), pairs(request.block)
            self._started = time.monotonic()
            self._tap = self._watcher.consider(RequestHead(request_id, method, path, lines, datetime.now(UTC)))
            if self._tap is not None:
                self.request_id = request_id
                self._counters.add("watched_requests")
        except Exception:  # noqa: BLE001 - see _give_up
            self._give_up("watch")

    def request_chunk(self, chunk: bytes) -> None:
        if self._tap is not None:
            try:
                self._tap.request_chunk(chunk)
            except Exception:  # noqa: BLE001 - see _give_up
                self._give_up("tap")

    def response_start(self, status: int, headers: Headers) -> None:
        if self._tap is not None:
            try:
                self._tap.response_start(status, headers)
            except Exception:  # noqa: BLE001 - see _give_up
                self._give_up("tap")

    def response_chunk(self, chunk: bytes) -> None:
        if self._tap is not None:
            try:
                self._tap.response_chunk(chunk, time.monotonic() - self._started)
            except Exception:  # noqa: BLE001 - see _give_up
                self._give_up("tap")

    def sees_end(self, chunk: bytes) -> bool:
        """Is this where a client has all that it wants? Ask before `response_chunk`."""
        if self._tap is not None:
            try:
                return self._tap.sees_end(chunk)
            except Exception:  # noqa: BLE001 - see _give_up
                self._give_up("tap")
        return False

    def finish(self, ending: Ending, held: Held | None = None) -> bool:
        """The exchange is over; hand on what was seen. More than one call is harmless.

        True: it went to `held`, whose client gets the end of the answer later.
        """
        tap = self._tap
        if tap is not None:
            try:
                outcome = tap.finish(ending, time.monotonic() - self._started)
                self._tap = None
                if held is not None and ending == "complete" and isinstance(outcome, RawExchange):
                    held.keep(outcome)
                    return True
                self._watcher.offer(outcome)
            except Exception:  # noqa: BLE001 - see _give_up
                self._give_up("offer")
        return False

    def _give_up(self, place: str) -> None:
        """Production goes on, whatever we have broken."""
        _LOG.exception("watching failed (%s); the request is relayed unwatched", place)
        self._counters.add("faults", place)
        tap, self._tap = self._tap, None
        if tap is not None:
            try:
                tap.discard()
            except Exception:  # noqa: BLE001 - the same
                _LOG.exception("discarding a tap failed")
