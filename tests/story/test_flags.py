"""From a flag to what a rule does about it: explained, queued, kept, told; each once."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, select, update

from spex_proxy.facts.explanation import Explanation, Flag
from spex_proxy.facts.rules import DEFAULT_RULE, Rule, RuleBook, When
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.intake import Intake
from spex_proxy.flows.outside_flags import feedback_flag, flag_from_outside
from spex_proxy.flows.relay import Callers, Sampler
from spex_proxy.flows.rules.read import read_rules
from spex_proxy.flows.save import save_captured
from spex_proxy.flows.telling import tell
from spex_proxy.flows.transactions import write
from spex_proxy.flows.understand import Captured
from spex_proxy.flows.work import Report, run_job
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.webhooks import SIGNATURE, Webhooks
from spex_proxy.store import cases, exchanges, flags, outbox, webhooks
from spex_proxy.store.columns import utc_now
from spex_proxy.store.connect import reading
from spex_proxy.store.tables import exchanges as kept
from spex_proxy.store.tables_of_flags import webhooks as notices
from tests.story.explaining import RECIPE, Desk, question, sentences
from tests.story.running import relay
from tests.story.scripted_model import ScriptedModel, planted
from tests.story.upstream import Seen, Upstream, answer

RULES = """
flaggers:
  - {flagger: regex, flag: says_so, options: {output: "so[.]"}}
  - {flagger: untrusted}
  - {flagger: dominant}
rules:
  - name: look
    when: {flag: [says_so, "feedback:*"]}
    do: {explain: true, review: doubtful, keep_days: 30}
  - name: tell
    when: {flag: [untrusted, "feedback:bad"]}
    do: {webhook: "WEBHOOK"}
"""
SECRET = b"between us"
TOOL = [
    {"role": "system", "content": "Alpha is here."},
    {"role": "user", "content": "Bravo is here. Charlie is here."},
    {"role": "tool", "content": "Delta is here. Echo is here.", "tool_call_id": "1"},
]


class Place:
    """A relay, a store and a worker that follow rules."""

    def __init__(self, model: ScriptedModel, store: Engine, text: str, explain: float = 0.0) -> None:
        self.model, self.store = model, store
        text = text.replace("WEBHOOK", "http://127.0.0.1:9/nobody")
        otherwise = Rule(DEFAULT_RULE, When(), 1.0, explain, RECIPE)
        self.book: RuleBook = read_rules(text, "rules.yaml", otherwise, lambda _recipe: None)
        self.counters = Counters()
        self.orders = Orders(lambda: self.book, Plugins(), self.counters, b"secret")
        self._desk = Desk(model.url, store)

    def ask(self, body: Any) -> str:
        saved: list[str] = []

        def save(batch: Sequence[Captured]) -> dict[str, int]:
            with self.store.begin() as connection:
                save_captured(connection, batch, RECIPE, self.orders)
            saved.extend(captured.exchange.id for captured in batch)
            return {}

        sampler = Sampler(lambda: self.book, b"secret", Callers(everybody=True))
        intake = Intake(
            save=save, choose=sampler.choose, trace=lambda _: None, counters=self.counters, note=self.orders.note
        )
        intake.start()
        with relay(self.model.url, offer=intake.offer, counters=self.counters) as proxy:
            url = f"http://127.0.0.1:{proxy.port}/v1/chat/completions"
            assert httpx.post(url, json=body, trust_env=False, timeout=60).status_code == 200
        assert intake.close(5) == 0
        return saved[0]

    def flag(self, exchange: str, flag: Flag, **options: Any) -> bool:
        given = {"who": "ann", "key": None, **options}
        with self.store.begin() as connection:
            sent = flag_from_outside(connection, exchange, flag, project="default", orders=self.orders, **given)
        return sent.is_new

    async def work(self) -> Explanation:
        reports: list[Report] = []
        with self._desk.parts() as parts:
            async with parts.servers:
                job = await write(self.store, outbox.claim, "test")
                assert job is not None
                await run_job(job, replace(parts, orders=self.orders), reports.append)
        found = reports[-1].explanation
        assert found is not None, reports[-1].error
        return found

    def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with reading(self.store) as connection:
            return function(connection, *arguments)

    def checks(self, explanation_id: str) -> list[str]:
        return [check.name for check in self._desk.checks(explanation_id) if not check.is_passed]


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(planted(-12, {("Bravo",): 1.0, ("Delta",): 4.0})) as server:
        yield server


async def test_a_flagged_exchange_that_was_not_sampled_is_explained_first(model: ScriptedModel, store: Engine) -> None:
    place = Place(model, store, RULES)
    exchange = place.ask(question(sentences(5)))
    (raised,) = place.read(flags.of_exchange, exchange)
    assert (raised.flag.name, raised.flag.flagger, raised.explanation_id) == ("says_so", "regex", None)
    assert raised.flag.version.startswith("spex-proxy ")
    (job,) = place.read(outbox.jobs_of_exchange, exchange)
    assert (job.priority, job.why) == (outbox.Priority.FLAGGED, "flagged: says_so")
    (case,) = place.read(cases.list_cases, "default").cases
    assert (case.queue, case.why) == ("doubtful", "says_so")
    received, until = place.read(lambda c: c.execute(select(kept.c.received_at, kept.c.keep_until)).one())
    assert (until - received).days == 30
    await place.work()
    assert place.flag(exchange, feedback_flag("odd", None, None)), "explained already: no second job"
    assert len(place.read(outbox.jobs_of_exchange, exchange)) == 1
    assert len(place.read(cases.list_cases, "default").cases) == 1
    assert place.counters.value("rule_actions", "explained_already") == 1


def test_a_sampled_job_goes_ahead_instead_of_a_second_one(model: ScriptedModel, store: Engine) -> None:
    place = Place(model, store, RULES, explain=1.0)
    exchange = place.ask(question(sentences(5)))
    (job,) = place.read(outbox.jobs_of_exchange, exchange)
    assert (job.why, job.priority) == ("sampled", outbox.Priority.FLAGGED)


def test_without_a_rule_nothing_is_done(model: ScriptedModel, store: Engine) -> None:
    place = Place(model, store, "flaggers:\n  - {flagger: regex, options: {output: so}}\n")
    exchange = place.ask(question(sentences(5)))
    assert len(place.read(flags.of_exchange, exchange)) == 1
    assert place.read(outbox.jobs_of_exchange, exchange) == ()


def test_a_rate_of_none_never_acts(model: ScriptedModel, store: Engine) -> None:
    place = Place(model, store, RULES.replace("    do: {explain", "    rate: 0\n    do: {explain"))
    exchange = place.ask(question(sentences(5)))
    assert place.read(outbox.jobs_of_exchange, exchange) == ()


def test_a_cap_holds_for_flagged_ones_too(model: ScriptedModel, store: Engine) -> None:
    place = Place(model, store, RULES.replace("    do: {explain", "    per_day: 1\n    do: {explain"))
    jobs = [place.read(outbox.jobs_of_exchange, place.ask(question(sentences(5)))) for _ in range(2)]
    assert [len(found) for found in jobs] == [1, 0]
    assert place.counters.value("rule_actions", "capped") == 1


def test_a_flagger_that_raises_costs_its_flag_and_is_counted(model: ScriptedModel, store: Engine) -> None:
    place = Place(model, store, RULES + "  # none\n")
    place.book = replace(place.book, watches=(*place.book.watches, replace(place.book.watches[0], flagger="nobody")))
    exchange = place.ask(question(sentences(5)))
    assert len(place.read(flags.of_exchange, exchange)) == 1
    assert place.counters.value("flagger_failures", "nobody") == 1


async def test_what_a_tool_said_carries_the_answer(model: ScriptedModel, store: Engine) -> None:
    place = Place(model, store, RULES)
    exchange = place.ask({"model": "scripted", "messages": TOOL})
    found = await place.work()
    names = {flag.name: flag for flag in found.flags}
    assert set(names) == {"untrusted", "dominant"}
    assert names["untrusted"].score == pytest.approx(0.8)
    assert place.checks(found.id) == []
    (notice,) = place.read(lambda c: c.execute(select(notices)).all())
    assert (notice.rule, notice.flags, notice.explanation_id) == ("tell", ["untrusted"], found.id)
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE flags SET score = 0.1 WHERE name = 'untrusted'")
    assert place.checks(found.id) == ["what is told about it follows"]
    assert exchange == found.exchange_id


def test_a_flag_from_outside_is_one_flag_however_often_it_is_sent(model: ScriptedModel, store: Engine) -> None:
    place = Place(model, store, RULES)
    exchange = place.ask(question(sentences(5)))
    bad = feedback_flag("bad", 0.0, "it made that up")
    assert [place.flag(exchange, bad), place.flag(exchange, bad), place.flag(exchange, bad, who="bob")] == [
        True, False, True,
    ]  # fmt: skip
    assert [place.flag(exchange, bad, key="1"), place.flag(exchange, bad, key="1")] == [True, False]
    assert len(place.read(lambda c: c.execute(select(notices)).all())) == 1, "its address is told once"
    with store.begin() as connection:
        exchanges.erase_content(connection, exchange, utc_now())
    assert place.flag(exchange, Flag("late", "late", flagger="guard")), "kept, though nothing is left to act upon"


# --------------------------------------------------------------------------------------------- webhooks


def test_a_webhook_is_signed_holds_no_content_and_gives_up_in_the_end(model: ScriptedModel, store: Engine) -> None:
    statuses = ["503 Busy", "302 Found", "200 OK"]
    with Upstream() as receiver:

        async def respond(_: Seen) -> Sequence[Any]:
            status = statuses.pop(0) if statuses else "500 Broken"
            return [answer(b"{}", status=status)]

        receiver.answers_by(respond)
        place = Place(model, store, RULES.replace("WEBHOOK", f"{receiver.url}/hook"))
        exchange = place.ask(question(sentences(5)))
        place.flag(exchange, feedback_flag("bad", None, "Bravo is not here"))
        for expected in ("due", "due", "sent"):
            assert asyncio.run(send_due(place)) == 1
            (notice,) = place.read(lambda c: c.execute(select(notices)).all())
            assert notice.state == expected
            hasten(store)
        assert asyncio.run(send_due(place)) == 0
        for seen in receiver.requests:
            body = json.loads(seen.body)
            assert set(body) == {
                "id", "project", "rule", "rules_digest", "exchange_id", "explanation_id", "flags", "created_at",
            }  # fmt: skip
            assert (body["exchange_id"], body["flags"]) == (exchange, ["feedback:bad"])
            assert b"Bravo" not in seen.body
            (signed,) = seen.values(SIGNATURE.encode())
            at, made = signed.decode().removeprefix("t=").split(",v1=")
            assert made == hmac.digest(SECRET, f"{at}.".encode() + seen.body, "sha256").hex()
        other = place.ask(question(sentences(5)))
        place.flag(other, feedback_flag("bad", None, None))
        for _ in range(webhooks.MOST_TRIES):
            assert asyncio.run(send_due(place)) == 1
            hasten(store)
        assert asyncio.run(send_due(place)) == 0
        states = place.read(lambda c: c.execute(select(notices.c.state, notices.c.reason)).all())
        assert sorted(states) == [("failed", "answered 500"), ("sent", None)]
        assert place.counters.value("webhooks", "given_up") == 1


async def send_due(place: Place) -> int:
    async with Webhooks(SECRET) as hooks:
        return await tell(place.store, hooks.send, place.counters)


def hasten(store: Engine) -> None:
    """As if the pause were over."""
    with store.begin() as connection:
        connection.execute(update(notices).values(due_at=notices.c.created_at))
