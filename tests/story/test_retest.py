"""Asked again: without some segments, and for the lines of a table that nobody had measured."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import Engine

from spex_proxy.engine.subsets import coalitions
from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import RequestHead
from spex_proxy.facts.explanation import Explanation, Flag
from spex_proxy.facts.rules import DEFAULT_RULE, Rule, When
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.fill_table import ask_table
from spex_proxy.flows.retest import ask_retest, top
from spex_proxy.flows.rules.read import read_rules
from spex_proxy.flows.work import Retries
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.store import exchanges, flags, games, outbox, retests
from spex_proxy.store.connect import reading
from spex_proxy.store.retests import RetestStory
from spex_proxy.study.stored import load_table
from spex_proxy.web.replies import retest_record
from tests.story.explaining import RECIPE, Desk, count, question, sentences
from tests.story.scripted_model import ANSWER, ScriptedModel, busy, planted

LURE = "Bravo"
NOW = Retries(tries=2, pause_s=0.0)


def obedient(prompt: str) -> str:
    """A model that does what the planted sentence says, and its work otherwise."""
    return ANSWER if LURE in prompt else "My work: a summary."


@pytest.fixture
def model() -> ScriptedModel:
    made = ScriptedModel(planted(-9, {(LURE,): 5, ("Alpha", "Delta"): 2}))
    made.says = obedient
    return made


async def explained(desk: Desk, count: int = 6) -> Explanation:
    desk.ask(question(sentences(count), temperature=0.7, stream=False, top_p=0.9))
    return await desk.explanation()


def asked(desk: Desk, explanation: Explanation, players: tuple[int, ...]) -> str:
    with desk.store.begin() as conn:
        return ask_retest(conn, explanation.id, players, who="ann", project="default").retest.id


def told(store: Engine, retest_id: str) -> RetestStory:
    with reading(store) as conn:
        return retests.story(conn, retest_id)


async def test_without_the_planted_sentence_the_model_does_its_work(model: ScriptedModel, store: Engine) -> None:
    with model:
        desk = Desk(model.url, store)
        explanation = await explained(desk)
        assert top(explanation, 1) == (1,), "Bravo is the second sentence"
        retest_id = asked(desk, explanation, top(explanation, 1))
        assert told(store, retest_id).state == "queued"
        spoken_before = len(model.upstream.requests)
        (report,) = await desk.work_off()
        assert report.error is None
        found = told(store, retest_id)
        bodies = [json.loads(seen.body) for seen in model.upstream.requests[spoken_before:]]
        desk.close()
    assert found.state == "done"
    assert found.answers is not None
    assert (found.answers.control.text, found.answers.removed.text) == (ANSWER, "My work: a summary.")
    outcome = found.retest.outcome
    assert outcome is not None
    assert (outcome.finding, outcome.is_reproduced, outcome.is_gone) == ("changed", True, None)
    assert outcome.prompt_tokens > 0
    whole, less = bodies
    assert whole["messages"][0]["content"] == sentences(6)
    assert less["messages"][0]["content"] == sentences(6).replace("Bravo is here. ", "")
    for body in bodies:
        assert (body["temperature"], body["top_p"], body["priority"]) == (0, 0.9, 100)
        assert "stream" not in body
        assert body["cache_salt"]


async def test_what_changes_nothing_is_said_to_change_nothing(model: ScriptedModel, store: Engine) -> None:
    with model:
        desk = Desk(model.url, store)
        explanation = await explained(desk)
        retest_id = asked(desk, explanation, (2,))
        await desk.work_off()
        desk.close()
    outcome = told(store, retest_id).retest.outcome
    assert outcome is not None
    assert (outcome.finding, outcome.overlap) == ("same", 1.0)


async def test_a_sampled_answer_that_does_not_come_back_is_said_so(model: ScriptedModel, store: Engine) -> None:
    with model:
        desk = Desk(model.url, store)
        explanation = await explained(desk)
        model.says = lambda _prompt: "Something else altogether."
        retest_id = asked(desk, explanation, (1,))
        await desk.work_off()
        desk.close()
    outcome = told(store, retest_id).retest.outcome
    assert outcome is not None
    assert (outcome.finding, outcome.is_reproduced) == ("same", False)


FLAGGERS = """
flaggers:
  - {flagger: regex, flag: says_so, options: {output: "so[.]"}}
  - {flagger: regex, flag: lured, options: {input: "Bravo"}}
  - {flagger: finish_reason, flag: stopped, options: {reason: stop}}
  - {flagger: latency, flag: slow, options: {duration_s: 0}}
  - {flagger: dominant}
"""


@pytest.mark.parametrize(
    ("players", "left", "is_gone", "said"),
    [
        ((1,), {"says_so": False, "lured": False, "stopped": True}, False, "What was flagged is still there (stopped)"),
        ((2,), {"says_so": True, "lured": True, "stopped": True}, False, "still there (says_so, lured, stopped)"),
    ],
)
async def test_what_was_flagged_is_looked_for_again(
    model: ScriptedModel, store: Engine, players: tuple[int, ...], left: dict[str, bool], is_gone: bool, said: str
) -> None:
    """By the flaggers that had raised it: not those of people, of explanations, or of how long it took."""
    with model:
        orders = orders_of(FLAGGERS)
        desk = Desk(model.url, store, orders=orders)
        explanation = await explained(desk)
        flag_as_stored(store, orders, str(explanation.exchange_id))
        retest_id = asked(desk, explanation, players)
        await desk.work_off()
        desk.close()
    found = told(store, retest_id)
    outcome = found.retest.outcome
    assert outcome is not None
    assert {flag.name: flag.removed for flag in outcome.flags} == left
    assert all(flag.control for flag in outcome.flags)
    assert outcome.is_gone is is_gone
    record = retest_record(found)
    assert record.gone is is_gone
    assert said in record.summary


async def test_what_was_flagged_is_gone(model: ScriptedModel, store: Engine) -> None:
    with model:
        orders = orders_of(FLAGGERS.replace("reason: stop", "reason: length"))
        desk = Desk(model.url, store, orders=orders)
        explanation = await explained(desk)
        flag_as_stored(store, orders, str(explanation.exchange_id))
        gone = asked(desk, explanation, (1,))
        await desk.work_off()
        model.says = lambda _prompt: "Something else altogether."
        elsewhere = Desk(model.url, store, orders=orders_of(FLAGGERS.replace('"Bravo"', '"Zulu"')))
        unknown = asked(elsewhere, explanation, (2,))
        await elsewhere.work_off()
        elsewhere.close()
        desk.close()
    assert retest_record(told(store, gone)).gone is True
    assert "What was flagged (says_so, lured) is gone." in retest_record(told(store, gone)).summary
    record = retest_record(told(store, unknown))
    assert [flag.name for flag in record.flags] == ["says_so"], "the rules' `lured` means another thing by now"
    assert record.gone is None, "the control does not raise it either"
    assert "no longer raises what was flagged (says_so)" in record.summary


def orders_of(text: str) -> Orders:
    book = read_rules(text, "rules.yaml", Rule(DEFAULT_RULE, When(), 1.0, 1.0, RECIPE), lambda _recipe: None)
    return Orders(lambda: book, Plugins(), Counters(), b"secret")


def flag_as_stored(store: Engine, orders: Orders, exchange_id: str) -> None:
    """As the intake flags it; and one of a person."""
    with store.begin() as conn:
        exchange = exchanges.load_exchange(conn, exchange_id)
        noted = orders.note(RequestHead(exchange.id, "POST", "", (), exchange.received_at), exchange)
        for flag in (*noted.flags, Flag("feedback", "bad")):
            who = "ann" if flag.name == "feedback" else None
            flags.raise_on_exchange(conn, exchange_id, flag, exchange.received_at, who=who)


async def test_the_model_gone_at_retest_is_said_and_can_be_asked_again(model: ScriptedModel, store: Engine) -> None:
    with model:
        desk = Desk(model.url, store, retries=NOW)
        explanation = await explained(desk)
        gone = Desk("http://127.0.0.1:9", store, retries=NOW)
        retest_id = asked(gone, explanation, (1,))
        same = asked(gone, explanation, (1,))
        assert same == retest_id, "one at a time"
        await gone.work_off()
        failed = told(store, retest_id)
        assert failed.state == "failed"
        assert "can't be reached" in str(failed.reason)
        assert "given up after 2 tries" in str(failed.reason)
        again = asked(desk, explanation, (1,))
        assert again != retest_id
        await desk.work_off()
        desk.close()
        gone.close()
    assert told(store, again).state == "done"
    assert told(store, retest_id).retest.outcome is None, "the failed one stays as it was"


async def test_a_server_that_refuses_is_quoted_by_its_first_line_only(model: ScriptedModel, store: Engine) -> None:
    with model:
        desk = Desk(model.url, store)
        explanation = await explained(desk)
        retest_id = asked(desk, explanation, (1,))
        model.refuses = "this model takes no temperature\n" + sentences(6)
        await desk.work_off()
        desk.close()
    failed = told(store, retest_id)
    assert failed.state == "failed"
    assert "this model takes no temperature" in str(failed.reason)
    assert "Bravo" not in str(failed.reason), "a reason outlives the content"


async def test_what_the_model_said_again_is_erased_with_the_rest(model: ScriptedModel, store: Engine) -> None:
    with model:
        desk = Desk(model.url, store)
        explanation = await explained(desk)
        done, waiting = asked(desk, explanation, (1,)), ""
        await desk.work_off()
        waiting = asked(desk, explanation, (2,))
        with store.begin() as conn:
            assert exchanges.erase_content(conn, str(explanation.exchange_id), datetime.now(UTC)) == 3
        await desk.work_off()
        with pytest.raises(CannotExplain, match="nothing left to ask"):
            asked(desk, explanation, (1,))
        desk.close()
    assert told(store, done).answers is None
    assert told(store, done).retest.outcome is not None, "the finding has no content and stays"
    assert told(store, waiting).state == "failed"
    assert count(store, "retest_texts", "blob IS NOT NULL") == 0
    with reading(store) as conn:
        raw = conn.exec_driver_sql("SELECT outcome, players FROM retests").all()
    assert "summary" not in str(raw)


async def test_missing_lines_are_asked_once_and_can_be_verified(model: ScriptedModel, store: Engine) -> None:
    with model:
        desk = Desk(model.url, store, recipe=replace(RECIPE, budget=40))
        explanation = await explained(desk, 8)
        chosen = (0, 1, 3)
        with reading(store) as conn:
            before = load_table(conn, explanation.id, chosen, "default")[1]
        assert before.measured < 8
        with store.begin() as conn:
            first = ask_table(conn, explanation.id, chosen, project="default")
            assert ask_table(conn, explanation.id, chosen, project="default").job_id == first.job_id
        asked_before = len(model.asked)
        model.faults.append(busy)  # asked again inside the job
        await desk.work_off()
        probes = len(model.asked) - asked_before - (8 - before.measured)
        with reading(store) as conn:
            after = load_table(conn, explanation.id, chosen, "default")[1]
            blocks = games.load_blocks(conn, explanation.game_ids[0])
            jobs = outbox.jobs_of_exchange(conn, str(explanation.exchange_id), kind="table")
        with store.begin() as conn:
            assert ask_table(conn, explanation.id, chosen, project="default").job_id is None
        checks = desk.checks(explanation.id)
        desk.close()
    assert probes in (0, 8 - before.measured), "once, but for the batch that was refused"
    assert after.measured == 8
    assert [job.state for job in jobs] == ["done"]
    worth = {line.kept: line.value for line in after.lines}
    lone, pair, whole = worth[False, True, False], worth[True, False, True], worth[True, True, True]
    rest = worth[False, False, False]
    assert np.allclose([lone - rest, pair - rest, whole - rest], [5, 2, 7])
    assert [line.count for line in after.lines] == [line.count for line in before.lines], "no samples: asked on purpose"
    assert all(check.is_passed for check in checks)
    assert "1 asked later" in checks[0].detail
    masks = np.concatenate([block.masks for block in blocks])
    wanted = coalitions(chosen, 8)
    assert all((masks == row).all(axis=1).sum() >= 1 for row in wanted)


async def test_a_table_of_another_server_is_not_mixed_in(model: ScriptedModel, store: Engine) -> None:
    with model:
        desk = Desk(model.url, store, recipe=replace(RECIPE, budget=40))
        explanation = await explained(desk, 8)
        model.version = "0.33.0"
        with store.begin() as conn:
            ask_table(conn, explanation.id, (0, 1, 3), project="default")
        (report,) = await desk.work_off()
        desk.close()
    assert "not the one that this explanation's evidence came from" in str(report.error)
