"""Story 1: one request. This file makes its decisions; relay/ moves its bytes.

    bytes -> relay/                  RequestHead(id, method, path, headers)
          -> Watcher.consider(head)  here: cheap, pure; None = not watched, no tap, no cost
          -> upstream                status, headers, chunks; only hop-by-hop headers dropped
          -> client                  each chunk goes out first, then into the tap
          -> Tap.finish()            RawExchange, or Skipped and why
          -> Watcher.offer(outcome)  to flows.intake: never waits, full = drop and count
    ---- the client is served; nothing below can hurt it ----
          -> wire.chat.parse         Exchange, or Skipped and why
          -> Sampler.choose          here: Verdict(explain?, why, probability)
          -> save                    one transaction: the exchange, and its job if it is to be explained

A tap may carry a `rewriter` (`tap.rewriter`, None but under a rule with `exact_token_ids`): what the relay
does with it is the contract in wire/rewriting.py.

Two draws decide, and both are stored with their probability, so that whoever reads the
store later can weigh what was kept against what was not. They are no random numbers:
each is an HMAC of the request's id under the operator's secret, so every replica, and
every auditor who holds the secret, comes to the same result.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from spex_proxy.facts.exchange import Exchange, RawExchange, RequestHead, Skipped
from spex_proxy.wire.chat import KINDS
from spex_proxy.wire.tap import Tap, TapBudget, TapLimits

EXPLAIN_HEADER = b"x-spex-explain"
"""`yes` has this one request captured and explained whatever the rates say; `no` has it never explained."""

_WISHES = {"yes": True, "no": False}


def may_be_watched(method: str, path: str) -> bool:
    """Whether we could understand such an exchange at all."""
    return method == "POST" and path in KINDS


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an exchange is to be explained, and how that came about."""

    explain: bool
    why: str
    """`header` (the client said so), `sampled` or `not_sampled`; `error` if choosing itself failed."""
    probability: float
    """Probability of being explained, given that the exchange was captured."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A request is to be watched: with which probability, and what the client wishes."""

    probability: float
    explain_wish: bool | None


@dataclass(frozen=True, slots=True)
class Sampler:
    """The two rates and the two draws."""

    capture_rate: float
    """Share of the understandable requests that are captured."""
    explain_rate: float
    """Share of the captured exchanges that are explained."""
    secret: bytes = field(repr=False)

    def consider(self, head: RequestHead) -> Capture | None:
        """Watch this request? Runs before its body is read, so it may look at the head only."""
        if not may_be_watched(head.method, head.path):
            return None
        wish = explain_wish(head)
        if wish:
            return Capture(1.0, wish)
        if draw(self.secret, head.id, "capture") < self.capture_rate:
            return Capture(self.capture_rate, wish)
        return None

    def choose(self, exchange: Exchange, wish: bool | None) -> Verdict:
        """Explain this exchange? Runs after production has been served."""
        if wish is not None:
            return Verdict(wish, "header", 1.0 if wish else 0.0)
        chosen = draw(self.secret, exchange.id, "explain") < self.explain_rate
        return Verdict(chosen, "sampled" if chosen else "not_sampled", self.explain_rate)


@dataclass(frozen=True, slots=True)
class Watcher:
    """All that the relay knows of the rest: may I watch this, and here is what I saw."""

    sampler: Sampler
    limits: TapLimits
    budget: TapBudget
    offer: Callable[[RawExchange | Skipped], bool]
    """Takes what a tap saw; must neither wait nor raise. flows.intake.Intake.offer."""

    def consider(self, head: RequestHead) -> Tap | None:
        """A tap for this request, or None: then it costs nothing more."""
        capture = self.sampler.consider(head)
        if capture is None:
            return None
        return Tap(head, self.limits, self.budget, capture.probability, capture.explain_wish)


def explain_wish(head: RequestHead) -> bool | None:
    """What the client's header says. Anything but yes and no says nothing."""
    value = head.header(EXPLAIN_HEADER)
    return None if value is None else _WISHES.get(value.strip().lower())


def draw(secret: bytes, request_id: str, purpose: str) -> float:
    """A number in [0, 1), uniform over ids, that depends on its arguments only.

    `purpose` keeps the draws apart: being captured says nothing about being explained.
    """
    digest = hmac.digest(secret, f"{purpose}:{request_id}".encode(), "sha256")
    return int.from_bytes(digest[:8], "big") / 2**64


def new_request_id() -> str:
    """A UUIDv7 (RFC 9562): milliseconds, then the fraction of one in 12 bits, then 62 random bits.

    Ids sort by time to a quarter of a microsecond, as far as the clock goes forward. Python 3.11 makes none.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    noise = int.from_bytes(os.urandom(8), "big") >> 2
    digits = f"{milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | noise:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
