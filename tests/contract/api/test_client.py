"""The Python client: everything that the API can do, from both of its forms, which do the same."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from spex_proxy.client import AsyncClient, Client, policy
from spex_proxy.client.reading import EventDecoder
from spex_proxy.facts import records
from spex_proxy.facts.errors import (
    BadReply,
    CannotExplain,
    NotFound,
    PluginError,
    SpexError,
    UpstreamBusy,
    UpstreamError,
)
from spex_proxy.facts.retest import Answers, Spoken, compare
from spex_proxy.store import outbox, retests
from tests.contract.api.serving import LONG_AGO, Api, explain
from tests.contract.store.samples import NOON

Ask = Callable[..., Any]


def by_sync(url: str, method: str, *arguments: Any, http: Any = None, **options: Any) -> Any:
    with Client(url, http=http and httpx.Client(transport=http)) as client:
        got = getattr(client, method)(*arguments, **options)
        return list(got) if isinstance(got, Iterator) else got


def by_async(url: str, method: str, *arguments: Any, http: Any = None, **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, http=http and httpx.AsyncClient(transport=http)) as client:
            got = getattr(client, method)(*arguments, **options)
            return [item async for item in got] if hasattr(got, "__aiter__") else await got

    return asyncio.run(run())


@pytest.fixture(params=[by_sync, by_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    asked: Ask = request.param
    return asked


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "PAUSE_S", 0.01)
    monkeypatch.setattr(policy, "LONGEST_PAUSE_S", 0.02)


def new_exchange(api: Api) -> str:
    with api.engine.begin() as conn:
        return api.make.saved(conn, received_at=LONG_AGO).id


# ------------------------------------------------------------------------------------- parity


def test_both_forms_offer_the_same_with_the_same_arguments_and_words() -> None:
    def public(kind: type) -> dict[str, Any]:
        return {name: value for name, value in inspect.getmembers(kind, callable) if not name.startswith("_")}

    sync, asynchronous = public(Client), public(AsyncClient)
    assert set(sync) == set(asynchronous)
    for name, method in sync.items():
        ours, theirs = inspect.signature(method), inspect.signature(asynchronous[name])
        assert list(ours.parameters.values()) == list(theirs.parameters.values()), name
        assert inspect.getdoc(method) == inspect.getdoc(asynchronous[name]), name


def test_every_operation_of_the_api_has_a_method(api: Api) -> None:
    document = api.http.get(f"{api.url}/spex/api/v1/openapi.json").json()
    ends = {path.rsplit("/", 1)[1] for path in document["paths"] if path.startswith("/spex/api/v1/")}
    words = {"{any_id}": "exchange", "{job_id}": "job", "{case_id}": "case", "events": "follow"}
    words |= dict.fromkeys(("exchanges.jsonl", "explanations.jsonl", "interactions.jsonl"), "export")
    words |= {"{retest_id}": "one_retest", "report.html": "report"}
    words |= {"evidence.csv": "evidence", "evidence.npz": "evidence"}
    assert {words.get(end, end) for end in ends} <= set(dir(Client))


# -------------------------------------------------------------------------------------- reads


def test_it_reads_what_the_api_says(api: Api, ask: Ask) -> None:
    filled = api.filled
    row = ask(api.url, "exchange", filled.upstream_id).row
    assert isinstance(row, records.ExchangeRow)
    assert (row.id, row.received_at.utcoffset(), row.state) == (filled.explained, NOON.utcoffset(), "reliable")
    assert ask(api.url, "explanation", filled.explained).terms is None
    explanation = ask(api.url, "explanation", filled.explained, terms=True)
    assert explanation.fidelity.noise_ceiling is None
    assert explanation.terms[2].segments == (2, 3)
    assert len(ask(api.url, "evidence", filled.explained).games[0].masks) == 8
    assert ask(api.url, "verify", filled.explained).passed is True
    assert ask(api.url, "job", filled.done).is_over is True


def test_lists_are_walked_page_by_page(api: Api, ask: Ask) -> None:
    whole = ask(api.url, "exchanges", preview=True)
    assert whole == ask(api.url, "exchanges", preview=True, page_size=2)
    assert [row.received_at for row in whole] == sorted((row.received_at for row in whole), reverse=True)
    assert [row.id for row in ask(api.url, "exchanges", state=["failed", "queued"], since=NOON.replace(hour=1))] == [
        api.filled.failed, api.filled.queued,
    ]  # fmt: skip
    assert len(ask(api.url, "explanations", verdict=["reliable"], page_size=1)) == 2
    assert ask(api.url, "explanations", flag="nobody's") == []


def test_odd_ids_are_sent_as_they_are(api: Api, ask: Ask) -> None:
    for odd in ("a/b", "..", "%2e", "é?x=1#y", "a b", "\u2028"):
        with pytest.raises(SpexError):
            ask(api.url, "exchange", odd)


# -------------------------------------------------------------------------------------- errors


def test_errors_come_back_as_our_own(api: Api, ask: Ask) -> None:
    with pytest.raises(NotFound, match="nobody"):
        ask(api.url, "exchange", "nobody's id")
    with pytest.raises(CannotExplain, match="erased"):
        ask(api.url, "explain", api.filled.erased)
    with pytest.raises(PluginError, match="installed"):
        ask(api.url, "explain", api.filled.plain, segmenter="chapter")
    with pytest.raises(SpexError, match=r"body\.budget"):
        ask(api.url, "explain", api.filled.plain, budget=1)
    with pytest.raises(SpexError, match="it can't be cancelled"):
        ask(api.url, "cancel", api.filled.done)


def test_a_server_that_is_not_there_is_tried_again_and_then_said(ask: Ask) -> None:
    with pytest.raises(UpstreamError, match="can't be reached"):
        ask("http://127.0.0.1:1", "job", "x")


def test_a_busy_server_is_asked_again_and_a_change_is_not(api: Api, ask: Ask) -> None:
    tried: list[str] = []

    def transport(request: httpx.Request) -> httpx.Response:
        tried.append(request.method)
        body = {"error": {"message": "down", "type": "server_error", "code": "store_unavailable"}}
        return httpx.Response(503, json=body, headers={"retry-after": "5"})

    for method, times in (("job", policy.TRIES), ("cancel", 1)):
        tried.clear()
        with pytest.raises(UpstreamBusy, match="down"):
            ask(api.url, method, "x", http=httpx.MockTransport(transport))
        assert len(tried) == times


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"id": "x"}', b"\xff"])
@pytest.mark.parametrize("status", [200, 418])
def test_what_is_not_ours_is_a_bad_reply(ask: Ask, status: int, body: bytes) -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(status, content=body))
    with pytest.raises(BadReply):
        ask("http://x", "job", "x", http=transport)


def test_fields_of_a_newer_server_are_left_out(api: Api, ask: Ask) -> None:
    newer = api.ok(f"/jobs/{api.filled.done}") | {"mood": "good"}
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=newer))
    assert ask("http://x", "job", "x", http=transport).id == api.filled.done


# ---------------------------------------------------------------------------- explain and follow


def work(api: Api, exchange_id: str, end: Callable[[Any, outbox.Job], None]) -> threading.Thread:
    """A worker that takes the exchange's job as soon as it is there."""

    def run() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with api.engine.begin() as conn:
                jobs = outbox.jobs_of_exchange(conn, exchange_id)
                job = outbox.claim(conn, "w", job_id=jobs[0].id) if jobs else None
            if job is not None:
                time.sleep(0.7)
                with api.engine.begin() as conn:
                    end(conn, job)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_explain_gives_the_job_or_waits_for_the_explanation(api: Api, ask: Ask) -> None:
    def finish(conn: Any, job: outbox.Job) -> None:
        outbox.finish(conn, job, explain(conn, api.make, job.exchange_id, created_at=LONG_AGO))

    exchange_id = new_exchange(api)
    asked = ask(api.url, "explain", exchange_id, seed=3, idempotency_key="mine")
    assert (asked.state, asked.recipe["seed"]) == ("queued", 3)
    worker, told = work(api, exchange_id, finish), []
    explanation = ask(
        api.url, "explain", exchange_id, seed=3, idempotency_key="mine", wait=True, on_progress=told.append
    )
    worker.join()
    assert explanation.exchange_id == exchange_id
    assert [job.state for job in told][-1] == "done"
    assert {job.id for job in told} == {asked.id}
    assert [job.state for job in ask(api.url, "follow", asked.id)] == ["done"]


def test_a_job_that_ends_without_an_explanation_says_why(api: Api, ask: Ask) -> None:
    exchange_id = new_exchange(api)
    worker = work(api, exchange_id, lambda conn, job: outbox.fail(conn, job, "the model is gone", final=True))
    with pytest.raises(CannotExplain, match="the model is gone"):
        ask(api.url, "explain", exchange_id, wait=True)
    worker.join()


def test_a_stream_that_breaks_is_opened_again(api: Api, ask: Ask) -> None:
    job = api.ok(f"/jobs/{api.filled.done}")
    opened: list[int] = []

    def transport(request: httpx.Request) -> httpx.Response:
        opened.append(1)
        running = b'event: progress\ndata: {"id": "cut'
        whole = b"event: end\ndata: " + httpx.Response(200, json=job).content + b"\n\n"
        return httpx.Response(200, content=running if len(opened) < 3 else whole)

    got = ask("http://x", "follow", "x", http=httpx.MockTransport(transport))
    assert ([j.id for j in got], len(opened)) == ([job["id"]], 3)


def test_a_job_can_be_paused_resumed_and_cancelled(api: Api, ask: Ask) -> None:
    job = ask(api.url, "explain", new_exchange(api))
    states = [ask(api.url, change, job.id).state for change in ("pause", "resume", "cancel")]
    assert states == ["paused", "queued", "cancelled"]


def test_events_are_the_same_whole_and_byte_by_byte() -> None:
    stream = b': hi\n\nevent: progress\r\ndata: {"a": "\xe2\x80\xa8"}\r\n\r\ndata: 1\ndata: 2\n\nevent: cut\n'
    whole = EventDecoder().feed(stream)
    decoder = EventDecoder()
    assert [e for byte in stream for e in decoder.feed(bytes([byte]))] == whole
    assert whole == [("progress", '{"a": "\u2028"}'), ("message", "1\n2")]
    with pytest.raises(BadReply):
        EventDecoder().feed(b"data: " + b"x" * (1 << 21))


def test_it_reviews(api: Api, ask: Ask) -> None:
    with api.engine.begin() as conn:
        exchange_id = api.make.saved(conn, received_at=LONG_AGO).id
    case = ask(api.url, "open_case", exchange_id, "ann", queue=exchange_id, note="odd")
    assert ask(api.url, "next", "ann", queue=exchange_id).holder == "ann"
    with pytest.raises(SpexError, match="ann's until"):
        ask(api.url, "claim", case.id, "bob")
    assert ask(api.url, "release", case.id, "ann").state == "open"
    assert ask(api.url, "claim", case.id, "bob").holder == "bob"
    assert ask(api.url, "note", case.id, "ann", "look at the tool").state == "claimed"
    assert ask(api.url, "verdict", case.id, "bob", "wrong").label == "wrong"
    assert ask(api.url, "reopen", case.id, "ann").state == "open"
    acts = [event.act for event in ask(api.url, "case", case.id).history]
    assert acts == ["opened", "claimed", "released", "claimed", "noted", "judged", "reopened"]
    assert [one.id for one in ask(api.url, "cases", queue=exchange_id)] == [case.id]
    assert "wrong" in ask(api.url, "review").labels


# --------------------------------------------------------------------------- tables, re-tests, the report


def test_a_retest_is_waited_for_and_its_failure_is_an_error(api: Api, ask: Ask) -> None:
    with api.engine.begin() as conn:
        exchange_id = api.make.saved(conn, received_at=LONG_AGO).id
        explain(conn, api.make, exchange_id)

    def work(end: Callable[[Any, outbox.Job, retests.RetestStory], None]) -> threading.Thread:
        def run() -> None:
            while True:
                time.sleep(0.05)
                with api.engine.begin() as conn:
                    for story in retests.stories(conn, exchange_id):
                        job = outbox.claim(conn, "w", job_id=story.retest.job_id) if story.state == "queued" else None
                        if job is not None:
                            end(conn, job, story)
                            return

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def answer(conn: Any, job: outbox.Job, story: retests.RetestStory) -> None:
        answers = Answers(Spoken("It is warm. ☀", "stop"), Spoken("It snows.", "stop"))
        retests.keep_answers(conn, story.retest.id, answers, compare("It is warm. ☀", answers), NOON, "default")
        outbox.finish(conn, job, story.retest.explanation_id)

    worker = work(answer)
    found = ask(api.url, "retest", exchange_id, "ann", segments=[2])
    worker.join()
    assert (found.segments, found.finding, found.removed) == ((2,), "changed", "It snows.")
    worker = work(lambda conn, job, _story: outbox.fail(conn, job, "the model is away", final=True))
    with pytest.raises(CannotExplain, match="the model is away"):
        ask(api.url, "retest", exchange_id, "ann", top=1)
    worker.join()
    assert [one.state for one in ask(api.url, "retests", exchange_id)] == ["failed", "done"]
    assert ask(api.url, "one_retest", found.id).removed == "It snows."


def test_a_table_and_the_report_are_read(api: Api, ask: Ask) -> None:
    table = ask(api.url, "coalitions", api.filled.explained, [1, 3])
    assert [line.kept for line in table.lines] == [(), (1,), (3,), (1, 3)]
    assert ask(api.url, "coalitions", api.filled.explained).segments == (2, 3)
    assert ask(api.url, "report", api.filled.explained).startswith("<!doctype html>")
    with pytest.raises(NotFound):
        ask(api.url, "report", "nobody's id")
