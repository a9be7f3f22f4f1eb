"""Story 2 when something breaks: a stated reason, nothing half stored, the worker goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from spex_proxy.flows import batch as batch_flow
from spex_proxy.flows.transactions import write
from spex_proxy.flows.work import Retries, run_job
from spex_proxy.ports import model_server
from spex_proxy.store import exchanges, outbox
from spex_proxy.store.columns import utc_now
from tests.story.explaining import RECIPE, Desk, count, question, sentences
from tests.story.scripted_model import (
    Fault,
    ScriptedModel,
    busy,
    changed,
    closing,
    dying,
    planted,
    refusing,
    waiting,
)
from tests.story.upstream import eventually

GAME = planted(-12, {("Bravo",): 1.5, ("Alpha", "Delta"): 4})
FIVE = question(sentences(5))
SECRET = "Alpha"
"""A word of the content: it must never leave `contents`."""


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(GAME) as server:
        yield server


@pytest.fixture
def desk(model: ScriptedModel, store: Engine) -> Iterator[Desk]:
    made = Desk(model.url, store)
    yield made
    made.close()


@pytest.fixture
def no_pauses(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_flow, "BUSY_PAUSE_S", 0.001)
    desk.retries = Retries(pause_s=0.0)


async def refused(desk: Desk) -> str:
    """Ask, work, and return the reason for which the one job failed; nothing else may have been stored."""
    exchange = desk.ask(FIVE)
    await desk.work_off()
    (job,) = desk.jobs(exchange)
    assert job.state == "failed"
    assert count(desk.store, "explanations") == 0
    assert job.reason is not None
    assert SECRET not in job.reason, "a reason outlives the content"
    return job.reason


# ---- the server is busy, or breaks off ----

PASSING: dict[str, Fault] = {
    "busy": busy,
    "died in the middle of a reply": dying,
    "closed the connection": closing,
}


@pytest.mark.parametrize("case", PASSING)
async def test_trouble_that_passes_is_sat_out(case: str, desk: Desk, model: ScriptedModel, no_pauses: None) -> None:
    model.faults.extend([PASSING[case]] * 3)
    desk.ask(FIVE)
    found = await desk.explanation()
    assert found.fidelity.r2 == pytest.approx(1.0)
    assert found.cost.masks == 34
    assert len(model.asked) == 34 + 3 * 8  # the first batch was asked four times
    assert count(desk.store, "outbox", "attempts = 1") == 1


async def test_a_server_that_stays_busy_costs_the_job_an_attempt(
    desk: Desk, model: ScriptedModel, no_pauses: None
) -> None:
    exchange = desk.ask(FIVE)
    model.always = busy
    await desk.work_off(most_jobs=1)
    (job,) = desk.jobs(exchange)
    assert (job.state, job.attempts) == ("queued", 1)
    assert job.reason is not None
    assert "503" in job.reason
    model.always = None
    assert (await desk.explanation()).cost.masks == 34


async def test_in_the_end_a_busy_server_fails_the_job(desk: Desk, model: ScriptedModel, no_pauses: None) -> None:
    model.always = busy
    assert "503" in await refused(desk)
    assert count(desk.store, "outbox", f"attempts = {desk.retries.tries}") == 1


async def test_a_busy_server_is_left_alone_for_a_while(
    desk: Desk, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_flow, "BUSY_PAUSE_S", 0.001)
    exchange = desk.ask(FIVE)
    model.always = busy
    assert len(await desk.work_off()) == 1
    assert len(await desk.work_off()) == 0  # queued, but not for now
    assert desk.jobs(exchange)[0].state == "queued"


async def test_a_slow_server_is_asked_again(
    desk: Desk, model: ScriptedModel, no_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_server, "PATIENCE_S", 0.3)
    model.faults.append(waiting(model.gate()))
    desk.ask(FIVE)
    assert (await desk.explanation()).cost.masks == 34
    assert model.upstream.aborted == 1


async def test_no_server_at_all(desk: Desk, no_pauses: None) -> None:
    exchange = desk.ask(FIVE)
    desk.upstream_url = "http://127.0.0.1:9"
    await desk.work_off(most_jobs=1)
    (job,) = desk.jobs(exchange)
    assert job.state == "queued"
    assert job.reason is not None
    assert "127.0.0.1:9" in job.reason


# ---- the server answers something else ----


def _rows(data: dict[str, Any]) -> list[Any]:
    rows: list[Any] = data["choices"][0]["prompt_logprobs"]
    return rows


MALFORMED: dict[str, tuple[Fault, str]] = {
    "fewer choices": (changed(lambda d: d["choices"].pop() and None), "8 probes"),
    "no choices": (changed(lambda d: {"usage": d["usage"]}), "8 probes"),
    "a choice is null": (changed(lambda d: d["choices"].__setitem__(0, None)), "choices"),
    "an index twice": (changed(lambda d: d["choices"][1].update(index=0)), "index 1"),
    "no rows": (changed(lambda d: d["choices"][0].update(prompt_logprobs=None)), "prompt_logprobs"),
    "a row too few": (changed(lambda d: _rows(d).pop() and None), "prompt_logprobs"),
    "a row is null": (changed(lambda d: _rows(d).__setitem__(-1, None)), "no log-probability"),
    "another token's row": (changed(lambda d: _rows(d).__setitem__(-1, {"7": {}})), "no log-probability"),
    "not a number": (
        changed(lambda d: [e.update(logprob=float("nan")) for e in _rows(d)[-1].values()] and None),
        "no log-probability",
    ),
    "a logit": (changed(lambda d: [e.update(logprob=9.5) for e in _rows(d)[-1].values()] and None), "positive"),
    "no usage": (changed(lambda d: d.pop("usage") and None), "usage.prompt_tokens"),
    "usage is a list": (changed(lambda d: d.update(usage=[1])), "usage.prompt_tokens"),
    "a list": (changed(lambda d: [1, 2]), "list"),
    "refused": (refusing("This model does not support prompt_logprobs"), "400"),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_reply_fails_the_job_and_nothing_is_stored(
    case: str, desk: Desk, model: ScriptedModel
) -> None:
    model.always, words = MALFORMED[case]
    assert words in await refused(desk)
    assert count(desk.store, "evidence_blocks") == 0


async def test_readings_before_a_malformed_reply_are_kept(desk: Desk, model: ScriptedModel) -> None:
    model.faults.extend([lambda reply: [reply]] * 2)
    model.faults.append(changed(lambda d: d.pop("usage") and None))
    await refused(desk)
    assert count(desk.store, "evidence_blocks") == 2


async def test_a_refusal_that_quotes_the_content_is_not_kept(desk: Desk, model: ScriptedModel) -> None:
    def quote(body: Any) -> tuple[int, Any]:
        return 400, {"error": {"message": f"cannot render this\n{body}", "type": "BadRequestError"}}

    model._routes["/v1/chat/completions/render"] = quote
    assert "400" in await refused(desk)


# ---- the exchange can't be explained ----


async def test_a_prompt_that_is_too_long_to_be_scored(desk: Desk, model: ScriptedModel) -> None:
    model.max_model_len = 20
    assert "the server takes 19" in await refused(desk)
    assert model.asked == []


async def test_a_prompt_without_players(desk: Desk, model: ScriptedModel) -> None:
    # the first token is nobody's, and here there is no other
    exchange = desk.ask({"model": "scripted", "prompt": "Hello"}, path="/v1/completions")
    await desk.work_off()
    assert "nothing in the prompt that could be masked" in str(desk.jobs(exchange)[0].reason)


async def test_a_prompt_of_token_ids(desk: Desk, model: ScriptedModel) -> None:
    model._ids.update({f"w{number}": number for number in range(5)})
    model.prompt_text = lambda body: model.text_of(body["prompt"])  # type: ignore[method-assign]
    exchange = desk.ask({"model": "scripted", "prompt": [0, 1, 2, 3]}, path="/v1/completions")
    await desk.work_off()
    assert "sent as token ids" in str(desk.jobs(exchange)[0].reason)


@pytest.mark.parametrize("rewrite", [str.upper, lambda text: text.replace(".", "!"), lambda text: text[:20]])
async def test_a_template_that_rewrites_text(rewrite: Callable[[str], str], desk: Desk, model: ScriptedModel) -> None:
    model.rewrite = rewrite
    assert "template changes the text of message 1" in await refused(desk)


async def test_a_server_with_another_template_by_now(desk: Desk, model: ScriptedModel) -> None:
    exchange = desk.ask(FIVE)
    model.rewrite = lambda text: f"Be kind. {text}"
    await desk.work_off()
    assert "prompt tokens when it answered" in str(desk.jobs(exchange)[0].reason)


async def test_a_model_that_is_gone(desk: Desk, model: ScriptedModel) -> None:
    exchange = desk.ask(FIVE)
    model._routes["/v1/models"] = lambda _: (200, {"data": [{"id": "another"}]})
    await desk.work_off()
    assert "another" in str(desk.jobs(exchange)[0].reason)


async def test_content_that_was_erased_before_its_turn(desk: Desk) -> None:
    exchange = desk.ask(FIVE)
    with desk.store.begin() as connection:
        exchanges.erase_content(connection, exchange, utc_now())
    await desk.work_off()
    assert "erased" in str(desk.jobs(exchange)[0].reason)


# ---- the worker ----


async def test_an_abrupt_stop_asks_no_committed_reading_again(desk: Desk, model: ScriptedModel) -> None:
    exchange = desk.ask(FIVE)
    gate = model.gate()
    model.faults.extend([lambda reply: [reply]] * 3)
    model.faults.append(waiting(gate))  # the fourth batch never comes
    with desk.parts() as parts:
        async with parts.servers:
            job = await write(desk.store, outbox.claim, "w")
            assert job is not None
            running = asyncio.create_task(run_job(job, parts, desk.reports.append))
            await asyncio.to_thread(eventually, lambda: len(model.asked) == 32)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
    committed = model.asked[:24]
    assert count(desk.store, "evidence_blocks") == 3
    model.asked.clear()
    assert await write(desk.store, outbox.requeue_running, "w") == 1
    found = await desk.explanation()
    assert not set(model.asked) & set(committed)
    assert len(model.asked) == 34 - 24
    assert found.cost.masks == 34
    assert desk.jobs(exchange)[0].attempts == 2
    assert count(desk.store, "explanations") == 1


async def test_a_job_that_was_taken_over_keeps_nothing(desk: Desk, model: ScriptedModel) -> None:
    """The claim is lost while the last batch is answered: somebody else took this worker for dead."""
    exchange, gate = desk.ask(FIVE), model.gate()
    model.faults.extend([lambda reply: [reply]] * 4)
    model.faults.append(waiting(gate))
    with desk.parts() as parts:
        async with parts.servers:
            job = await write(desk.store, outbox.claim, "w")
            assert job is not None
            running = asyncio.create_task(run_job(job, parts, desk.reports.append))
            await asyncio.to_thread(eventually, lambda: len(model.asked) == 34)
            with desk.store.begin() as connection:
                assert outbox.requeue_running(connection, "w") == 1
                assert outbox.claim(connection, "another") is not None
            gate.open()
            await asyncio.wait_for(running, 20)
    assert desk.reports[-1].error is not None
    (job,) = desk.jobs(exchange)
    assert (job.state, job.worker, job.reason) == ("running", "another", None)
    assert count(desk.store, "explanations") == 0


async def test_a_budget_that_is_too_small(desk: Desk) -> None:
    desk.recipe = replace(RECIPE, budget=8)
    assert "need a budget of at least 14" in await refused(desk)
