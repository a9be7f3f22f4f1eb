"""From bytes to what is stored of them: understand an exchange, decide on it, flag it, give it its span.

On the drain's thread, behind the client's back (flows.intake). A bug costs one exchange one thing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from spex_proxy.facts.exchange import Exchange, RawExchange, RequestHead, Skipped, TraceRef
from spex_proxy.flows.acting import Noted
from spex_proxy.flows.relay import Verdict
from spex_proxy.ports.counters import Counters
from spex_proxy.wire import chat

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


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
    noted: Noted = Noted()  # noqa: RUF009 - frozen
    """Its flags, and which rules act upon it."""


class Understanding:
    """What is asked about each exchange."""

    def __init__(
        self,
        choose: Callable[[RawExchange, Exchange], Verdict],
        trace: Callable[[Captured], TraceRef | None],
        note: Callable[[RequestHead, Exchange], Noted],
        counters: Counters,
        project: str,
    ) -> None:
        self._choose, self._trace, self._note = choose, trace, note
        self._counters = counters
        self._project = project

    def capture(self, raw: RawExchange) -> Captured | None:
        """What is to be stored of it; None if nothing is, and why is counted."""
        request = raw.head.id
        exchange = self.contained("parse", request, lambda: chat.parse(raw, self._project))
        if exchange is None:
            self._counters.add("dropped_exchanges", "fault")
            return None
        if isinstance(exchange, Skipped):
            self._counters.add("skipped_exchanges", exchange.reason)
            return None
        # Without a verdict, or without a span, an exchange is still worth keeping.
        understood = exchange
        verdict = self.contained("choose", request, lambda: self._choose(raw, understood))
        verdict = verdict or Verdict(False, "error", 0.0, raw.capture_probability)
        if not verdict.is_kept:
            self._counters.add("skipped_exchanges", "not_sampled")
            return None
        self._counters.add("captured_exchanges")
        if exchange.obstacle is not None:
            self._counters.add("unexplainable_exchanges", exchange.obstacle)
        exchange = dataclasses.replace(exchange, capture_probability=verdict.capture_probability)
        kept = exchange
        noted = self.contained("flag", request, lambda: self._note(raw.head, kept)) or Noted()
        captured = Captured(exchange, verdict, raw.request_body, *_trace_context(raw.head), noted=noted)
        span = self.contained("trace", request, lambda: self._trace(captured))
        return dataclasses.replace(captured, trace=span)

    def contained(self, place: str, request: str, work: Callable[[], T]) -> T | None:
        """Do it; a bug (ours, or a plugin's) costs one exchange one thing, never the thread."""
        try:
            return work()
        except Exception:  # noqa: BLE001 - see above
            self._counters.add("faults", place)
            _LOG.exception("request %s: %s failed; production was served", request, place)
            return None


def _trace_context(head: RequestHead) -> tuple[str | None, str | None]:
    """The caller's traceparent and tracestate. W3C: tracestate may come in several lines, traceparent not."""
    parents = [value for name, value in head.headers if name == b"traceparent"]
    states = [value for name, value in head.headers if name == b"tracestate"]
    parent = parents[0].decode("latin-1") if len(parents) == 1 else None
    return parent, b",".join(states).decode("latin-1") if states and parent else None
