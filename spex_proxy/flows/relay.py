"""Story 1: one request. This file makes its decisions; relay/ moves its bytes.

    bytes -> relay/                  RequestHead(id, method, path, headers)
          -> Watcher.consider(head)  here: cheap, pure; None = not watched, no tap, no cost
          -> upstream                status, headers, chunks; only hop-by-hop headers dropped
          -> client                  each chunk goes out first, then into the tap
          -> Tap.finish()            RawExchange, or Skipped and why
          -> Watcher.offer(outcome)  to flows.intake: never waits, full = drop and count
    ---- the client is served; nothing below can hurt it ----
          -> wire.chat.parse         Exchange, or Skipped and why
          -> Sampler.choose          here: Verdict(keep? explain? why, which probabilities, by which rule)
          -> save                    one transaction: the exchange, and its job if it is to be explained

A tap may carry a `rewriter` (`tap.rewriter`, None but under a rule with `exact_token_ids`): what the relay
does with it is the contract in wire/rewriting.py.

Two draws decide, and both are stored with their probability, so that whoever reads the
store later can weigh what was kept against what was not. They are no random numbers:
each is an HMAC of the request's id under the operator's secret, so every replica, and
every auditor who holds the secret, comes to the same result.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from spex_proxy.facts.exchange import Exchange, RawExchange, RequestHead, Skipped
from spex_proxy.facts.rules import Rule, RuleBook
from spex_proxy.flows.rules.match import rate_by_path, rule_for, view
from spex_proxy.wire.chat import KINDS
from spex_proxy.wire.exact_ids import ExactIds
from spex_proxy.wire.tap import Tap, TapBudget, TapLimits

EXPLAIN_HEADER = b"x-spex-explain"
"""`yes` has this one request captured and explained whatever the rules say; `no` has it never explained."""
KEY_HEADER = b"x-spex-key"
"""Shows that a caller may use the other one."""

_WISHES = {"yes": True, "no": False}


def may_be_watched(method: str, path: str) -> bool:
    """Whether we could understand such an exchange at all."""
    return method == "POST" and path in KINDS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an exchange, and how that came about."""

    explain: bool
    why: str
    """`header` (the client said so), `sampled`, `not_sampled`, `cannot_explain_...` (Exchange.obstacle);
    `error` if choosing itself failed; `capped` if the store found that its rule has no jobs left."""
    probability: float
    """Probability of being explained, given that the exchange was captured and caps aside."""
    capture_probability: float = 1.0
    is_kept: bool = True
    """False: watched because a rule might have captured it; the rule that fits does not."""
    rule: Rule | None = None
    """The rule that decided."""
    rules_digest: str | None = None
    """The version of the rules that it is of."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A request is to be watched: with which probability, what the client wishes, whether ids are wanted."""

    probability: float
    explain_wish: bool | None
    exact_token_ids: bool = False


@dataclass(frozen=True, slots=True)
class Callers:
    """Who may use `x-spex-explain`: everybody, those who show the key, or nobody."""

    everybody: bool = False
    key: bytes | None = field(default=None, repr=False)

    def may(self, head: RequestHead) -> bool:
        if self.everybody:
            return True
        shown = head.header(KEY_HEADER)
        return self.key is not None and shown is not None and hmac.compare_digest(shown.encode("latin-1"), self.key)


@dataclass(frozen=True, slots=True)
class Sampler:
    """The rules and the two draws.

    Which rule decides about an exchange is known only once it has been read: what is compared is then the
    same draw with that rule's own rate. So the probability of being captured is exactly that rate, however
    many rules might have fitted when only the head was known; and a rule file that changes meanwhile leaves
    the lower of both rates.
    """

    book: Callable[[], RuleBook]
    """The rules in force now."""
    secret: bytes = field(repr=False)
    callers: Callers = Callers(everybody=True)
    project: str = "default"

    def passes_by(self, request_id: str, path: str) -> bool:
        """Whether `consider` would say None to every such request whose header lines do not speak to us."""
        rate = rate_by_path(self.book(), path, self.project)
        return rate is not None and rate < 1 and (rate <= 0 or draw(self.secret, request_id, "capture") >= rate)

    def consider(self, head: RequestHead) -> Capture | None:
        """Watch this request? Runs before its body is read, so it may look at the head only."""
        if not may_be_watched(head.method, head.path):
            return None
        seen = view(self.book(), head, self.project)
        wish = self.wish(head)
        if wish:
            return Capture(1.0, wish, seen.exact_token_ids)
        rate = seen.capture
        if rate > 0 and (rate >= 1 or draw(self.secret, head.id, "capture") < rate):
            return Capture(rate, wish, seen.exact_token_ids)
        return None

    def wish(self, head: RequestHead) -> bool | None:
        """What the client's header says, if it may say it."""
        wish = explain_wish(head)
        return wish if wish is not None and self.callers.may(head) else None

    def choose(self, raw: RawExchange, exchange: Exchange) -> Verdict:
        """Keep, and explain, this exchange? Runs after production has been served."""
        book, wish = self.book(), raw.explain_wish
        rule = rule_for(book, raw.head, exchange)
        if wish:
            kept, captured = True, 1.0
        else:
            captured = min(raw.capture_probability, rule.capture)
            kept = draw(self.secret, raw.head.id, "capture") < captured
        explain, why, probability = self._explain(rule, exchange, wish)
        return Verdict(explain and kept, why, probability, captured, kept, rule, book.digest)

    def _explain(self, rule: Rule, exchange: Exchange, wish: bool | None) -> tuple[bool, str, float]:
        if exchange.obstacle is not None and wish is not False:
            return False, f"cannot_explain_{exchange.obstacle}", 0.0
        if wish is not None:
            return wish, "header", 1.0 if wish else 0.0
        chosen = draw(self.secret, exchange.id, "explain") < rule.explain
        return chosen, "sampled" if chosen else "not_sampled", rule.explain


@dataclass(frozen=True, slots=True)
class Hold:
    """Durable hand-off, as the relay sees it: a client sees the end of a watched answer once it was kept.

    What the relay does with a request that has a tap, under a watcher that has a hold; all others pass as ever:

    1. It writes every piece of the answer at once, until one ends the answer: by its framing (the last byte of
       a known length, the last chunk, the upstream's close), or by its content (`Tap.sees_end`: `[DONE]` and its
       like, after which clients read no further). That piece, and all that follow, wait in order.
    2. When the answer has ended: `tap.finish("complete", ...)`. A Skipped is offered, and nothing waits for it.
       A RawExchange goes to `keep(raw, then)`. The upstream's connection is free from here on.
    3. What waits is written when `then` is called, or when `keep` returned False, or `most_s` after the waiting
       began, whichever is first: a slow disk costs this one answer so much time and its guarantee, never the
       answer. The relay counts `held_answers`: `kept`, `unkept` (`then` or `keep` said False), `late`.
    4. If the answer ends otherwise (the client leaves, the upstream breaks off), what waits is written if there
       is still somebody to write to, and the outcome is offered as ever.
    """

    keep: Callable[[RawExchange, Callable[[bool], None]], bool]
    """Takes an exchange. Must neither wait nor raise. True: the callback will be called once, from another
    thread, with True when the record is on disk, with False when it can't be. False: it was dropped (and
    counted), no call will come. flows.intake.Intake.keep."""
    most_s: float = 0.25
    """Longest wait, in seconds."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """All that the relay knows of the rest: may I watch this, and here is what I saw."""

    sampler: Sampler
    limits: TapLimits
    budget: TapBudget
    offer: Callable[[RawExchange | Skipped], bool]
    """Takes what a tap saw; must neither wait nor raise. flows.intake.Intake.offer."""
    count: Callable[[str, str], None] = lambda _name, _label: None
    """Counts: a counter's name and label."""
    hold: Hold | None = None
    """None: best effort, no answer ever waits."""

    def passes_by(self, request_id: str, path: str) -> bool:
        """Known without a look at the header lines, which must not be for us: this request is not watched."""
        return self.sampler.passes_by(request_id, path)

    def consider(self, head: RequestHead) -> Tap | None:
        """A tap for this request, or None: then it costs nothing more."""
        capture = self.sampler.consider(head)
        if explain_wish(head) is not None and not self.sampler.callers.may(head):
            self.count("refused_overrides", "")
        if capture is None:
            return None
        rewriter = ExactIds(head, self.limits, self.count) if capture.exact_token_ids else None
        return Tap(head, self.limits, self.budget, capture.probability, capture.explain_wish, rewriter)


def explain_wish(head: RequestHead) -> bool | None:
    """What the client's header says. Anything but yes and no says nothing."""
    value = head.header(EXPLAIN_HEADER)
    return None if value is None else _WISHES.get(value.strip().lower())


def draw(secret: bytes, request_id: str, purpose: str) -> float:
    """A number in [0, 1), uniform over ids, that depends on its arguments only.

    `purpose` keeps the draws apart: being captured says nothing about being explained.
    """
    inner, outer = _keyed(secret)
    inner, outer = inner.copy(), outer.copy()
    inner.update(f"{purpose}:{request_id}".encode())
    outer.update(inner.digest())
    return int.from_bytes(outer.digest()[:8], "big") / 2**64


@lru_cache(maxsize=8)
def _keyed(secret: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two hashes of HMAC-SHA256 (RFC 2104), each with its key in. `hmac.digest` has OpenSSL look the
    algorithm up at every call, which takes six times as long as all the rest."""
    key = (secret if len(secret) <= 64 else hashlib.sha256(secret).digest()).ljust(64, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in key)), hashlib.sha256(bytes(byte ^ 0x5C for byte in key))


def new_request_id() -> str:
    """A UUIDv7 (RFC 9562): milliseconds, then the fraction of one in 12 bits, then 62 random bits.

    Ids sort by time to a quarter of a microsecond, as far as the clock goes forward. Python 3.11 makes none.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    noise = random.getrandbits(62)  # that no two are alike is what is wanted; Python seeds it anew after a fork
    digits = f"{milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | noise:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
