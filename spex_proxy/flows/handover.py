"""An exchange that passed elsewhere, past vLLM's own doors, goes the way of one that passed the relay.

spex-proxy-vllm's capture middleware -> POST /spex/handover -> wire.handed -> here
  -> Watcher.consider -> the tap, all at once -> Intake: the same rules, draws, limits, parser and outbox
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from spex_proxy.facts.exchange import Skipped
from spex_proxy.flows.relay import Watcher
from spex_proxy.wire.handed import Handed

Outcome = Literal["unwatched", "skipped", "taken", "dropped", "fault"]
"""`unwatched`: no rule and no draw wants it. `skipped`: it is not kept, for a reason that is counted. `taken`: it will
be stored; under durable hand-off, it is on disk. `dropped`: there was no room; counted. Each is final."""
BACKGROUND_HEADER = "x-spex-background"
"""Carries the key on our own questions, so that the middleware takes them for no production."""
_LOG = logging.getLogger(__name__)


def take(
    handed: Handed, watcher: Watcher, count: Callable[[str, str, float], None], then: Callable[[Outcome], None]
) -> None:
    """On the intake's own loop; `then` is called once, perhaps from another thread. Never waits, never raises."""

    def end(outcome: Outcome) -> None:
        count("handed_over", outcome, 1)
        then(outcome)

    for reason, number in handed.lost.items():
        count("handover_lost", reason, number)
    try:
        _take(handed, watcher, count, end)
    except Exception:  # noqa: BLE001 - a bug costs one exchange, and is told
        _LOG.exception("request %s was not taken over", handed.head.id)
        count("faults", "handover", 1)
        end("fault")


def _take(
    handed: Handed, watcher: Watcher, count: Callable[[str, str, float], None], end: Callable[[Outcome], None]
) -> None:
    tap = watcher.consider(handed.head)
    if tap is None:
        end("unwatched")
        return
    count("watched_requests", "", 1)
    tap.request_chunk(handed.request_body)
    tap.response_start(handed.status, handed.response_headers)
    tap.response_chunk(handed.answer, handed.first_byte_s)
    outcome = tap.finish(handed.ending, handed.duration_s)
    if isinstance(outcome, Skipped):
        watcher.offer(outcome)
        end("skipped")
    elif watcher.hold is None:
        end("taken" if watcher.offer(outcome) else "dropped")
    elif not watcher.hold.keep(outcome, lambda is_kept: end("taken" if is_kept else "dropped")):
        end("dropped")
