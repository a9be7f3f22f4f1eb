"""What becomes of an exchange that was flagged: flaggers look at it, and rules with `do` act upon it.

Always behind production's back: where exchanges are stored (flows.intake), where explanations are (flows.explain),
and where somebody from outside flags one (web). Each act is in the transaction that keeps the flag, so that there is
never one without the other; what takes time (explaining, telling an address) is only written down there.
"""

from __future__ import annotations

import hmac
import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from sqlalchemy import Connection

from spex_proxy.facts.exchange import Exchange, RequestHead
from spex_proxy.facts.explanation import Flag
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import Rule, RuleBook, Watch, Window
from spex_proxy.facts.seals import canonical_json
from spex_proxy.flows.rules.match import fits
from spex_proxy.plug import answers
from spex_proxy.plug.kinds import Seen
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.store import cases, exchanges, explanations, outbox, rules, steering, webhooks
from spex_proxy.wire.chat import KINDS
from spex_proxy.wire.patterns import fits_glob

log = logging.getLogger(__name__)

_JOBS = uuid.UUID("c2a5e0f4-6c1e-45c9-8a57-5370657861c7")
_PATHS = {kind: path for path, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Noted:
    """What was found when an exchange arrived: its flags, and the rules that act upon it."""

    flags: tuple[Flag, ...] = ()
    acting: tuple[Rule, ...] = ()
    rules_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Orders:
    """The rules in force, and what it takes to follow them."""

    book: Callable[[], RuleBook]
    plugins: Plugins
    counters: Counters
    secret: bytes = field(repr=False)
    """Keys the draws of rules with a rate: every process comes to the same result."""

    def note(self, head: RequestHead, exchange: Exchange) -> Noted:
        """Of an exchange that has arrived. Reads no store."""
        book = self.book()
        flags = tuple(flag for watch in book.watches for flag in self.look(watch, Seen(exchange)))
        return Noted(flags, self._fitting(book, head, exchange, _names(flags), is_arrival=True), book.digest)

    def look(self, watch: Watch, seen: Seen) -> tuple[Flag, ...]:
        """What one flagger finds; nothing if it is about something else, or fails, which is counted."""
        try:
            flagger = self.plugins.flagger(watch.flagger)
            if flagger.about != ("exchange" if seen.explanation is None else "explanation"):
                return ()
            found = answers.inspect(flagger, watch.flagger, seen, watch.options)
        except Exception as error:  # noqa: BLE001 - a stranger's code: it costs its own flag, and nothing else
            self.counters.add("flagger_failures", watch.flagger)
            log.error("the flagger %r failed: %s", watch.flagger, type(error).__name__)
            return ()
        version = self.plugins.get("flagger", watch.flagger).provenance
        return tuple(Flag(watch.name, detail, score, watch.flagger, version) for detail, score in found)

    def on_flags(
        self, conn: Connection, exchange: Exchange, names: Collection[str], explanation_id: str | None = None
    ) -> None:
        """Act upon flags that were raised after an exchange had arrived. Headers are not stored: a rule that asks for
        one fits no more."""
        if not names:
            return
        book = self.book()
        head = RequestHead(exchange.id, "POST", _PATHS.get(exchange.kind, ""), (), exchange.received_at)
        acting = self._fitting(book, head, exchange, names, is_arrival=False)
        self.carry_out(conn, exchange, Noted((), acting, book.digest), names, explanation_id)

    def carry_out(
        self,
        conn: Connection,
        exchange: Exchange,
        noted: Noted,
        names: Collection[str],
        explanation_id: str | None = None,
    ) -> None:
        """Do what the rules say about a stored exchange. Done twice, it changes nothing."""
        for rule in noted.acting:
            flags = sorted(name for name in names if _fits_flag(rule, (name,))) if rule.when.flag else []
            for kind in _carry_out(conn, rule, noted.rules_digest, exchange, flags, explanation_id):
                self.counters.add("rule_actions", kind)

    def _fitting(
        self, book: RuleBook, head: RequestHead, exchange: Exchange, names: Collection[str], *, is_arrival: bool
    ) -> tuple[Rule, ...]:
        return tuple(
            rule
            for rule in book.acting
            if (_fits_flag(rule, names) if rule.when.flag else is_arrival)
            and fits(rule.when, head, exchange)
            and drawn(self.secret, exchange.id, rule.name) < rule.rate
        )


def watched(orders: Orders, seen: Seen) -> tuple[tuple[Flag, ...], list[Mapping[str, object]]]:
    """The flags of an explanation, and who looked at it how: what `verify` needs to look again."""
    flags: list[Flag] = []
    looked: list[Mapping[str, object]] = []
    for watch in orders.book().watches:
        found = orders.look(watch, seen)
        flags.extend(found)
        if found:
            looked.append({"name": watch.name, "flagger": watch.flagger, "options": dict(watch.options)})
    return tuple(flags), looked


def drawn(secret: bytes, exchange_id: str, rule: str) -> float:
    """A number in [0, 1) for each exchange and rule, the same in every process."""
    digest = hmac.digest(secret, f"act:{rule}:{exchange_id}".encode(), "sha256")
    return int.from_bytes(digest[:8], "big") / 2**64


def has_room(conn: Connection, exchange: Exchange, rule: Rule) -> bool:
    """Take one of the rule's jobs of this minute and day, by the time when the request arrived."""
    caps: tuple[tuple[Window, int | None], ...] = (("minute", rule.per_minute), ("day", rule.per_day))
    return all(
        most is None or rules.take(conn, rule.name, window, exchange.received_at, most, project=exchange.project)
        for window, most in caps
    )


def _names(flags: Sequence[Flag]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(flag.name for flag in flags))


def _fits_flag(rule: Rule, names: Collection[str]) -> bool:
    return any(fits_glob(glob, name) for name in names for glob in rule.when.flag)


def _carry_out(
    conn: Connection,
    rule: Rule,
    digest: str | None,
    exchange: Exchange,
    flags: Sequence[str],
    explanation_id: str | None,
) -> list[str]:
    """What was done, by kind."""
    action, project, done = rule.action, exchange.project, list[str]()
    assert action is not None, "only rules that act are carried out"
    why = flags[0] if flags else rule.name
    if action.explain:
        done.append(_explain(conn, rule, exchange, why))
    if action.queue is not None:
        cases.open_case(
            conn, exchange.id, why=why, who=f"rule {rule.name}", queue=action.queue, priority=rule.priority,
            explanation_id=explanation_id, project=project,
        )  # fmt: skip
        done.append("review")
    if action.keep_days is not None:
        until = exchange.received_at + timedelta(days=action.keep_days)
        exchanges.keep_until(conn, exchange.id, until, project=project)
        done.append("keep")
    if action.webhook is not None:
        is_new = webhooks.plan(
            conn, action.webhook, rule=rule.name, rules_digest=digest, exchange_id=exchange.id,
            explanation_id=explanation_id, flags=flags, project=project,
        )  # fmt: skip
        done.extend(["webhook"] if is_new else [])
    return done


def _explain(conn: Connection, rule: Rule, exchange: Exchange, why: str) -> str:
    """Never twice for the same recipe, target and all: what waits already goes ahead instead. What failed is tried
    once more for each flag that comes later; what a person cancelled stays so."""
    project, recipe = exchange.project, rule.recipe
    if exchange.obstacle is not None:
        return "cannot_explain"
    jobs = outbox.jobs_of_exchange(conn, exchange.id, project=project)
    alike = [job for job in jobs if _plain(job.recipe()) == _plain(recipe)]
    for job in alike:
        if job.state != "failed":
            steering.hurry(conn, job.id, rule.priority, project=project)
            return "explained_already"
    made = explanations.recipes_of_exchange(conn, exchange.id, project=project)
    if any(_plain(other) == _plain(recipe) for other in made):
        return "explained_already"
    if not has_room(conn, exchange, rule):
        return "capped"
    trace = exchanges.load_trace(conn, exchange.id, project=project)
    again = f"\n{len(alike)}" if alike else ""  # all of them failed: this one is another job
    key = f"{project}\n{exchange.id}\n".encode() + canonical_json(recipe.to_json()) + again.encode()
    outbox.enqueue(
        conn,
        exchange_id=exchange.id,
        recipe=recipe,
        why=f"flagged: {why}",
        priority=rule.priority,
        traceparent=trace.traceparent() if trace else None,
        project=project,
        job_id=str(uuid.uuid5(_JOBS, key.hex())),
    )
    return "explain"


def _plain(recipe: Recipe) -> Recipe:
    return replace(recipe, plugins={})
