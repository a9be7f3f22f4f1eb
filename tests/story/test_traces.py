"""One trace for the request, in the caller's; one for the job, linked to it; and no content in either."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import Engine

from tests.story.bad_plugins import SegmenterThatRaises, plugins_with
from tests.story.explaining import RECIPE, Desk, question, sentences
from tests.story.scripted_model import ScriptedModel, planted, refusing

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FIVE = question(sentences(5))
CONTENT = re.compile(r"Alpha|Bravo|Charlie|Delta|Echo|is here|It is so")


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(planted(-9, {("Bravo",): 2})) as server:
        yield server


@pytest.fixture
def desk(model: ScriptedModel, store: Engine) -> Iterator[Desk]:
    made = Desk(model.url, store)
    yield made
    made.close()


def named(spans: tuple[ReadableSpan, ...], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


def ids(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def row(path: Path, query: str) -> tuple[Any, ...]:
    with closing(sqlite3.connect(path)) as db:
        (found,) = db.execute(query).fetchall()
    return tuple(found)


def everything(span: ReadableSpan) -> str:
    """All that an exporter would send of a span."""
    return str(span.to_json()) + json.dumps(dict(span.resource.attributes))


async def test_the_link_and_the_ids_in_sql(desk: Desk, store_path: Path) -> None:
    exchange_id = desk.ask(FIVE, traceparent=CALLER, tracestate="vendor=1")
    explanation = await desk.explanation()
    spans = desk.spans()
    (request,) = named(spans, "chat scripted")
    (job,) = named(spans, "spex explain scripted")

    assert ids(request) == row(store_path, "SELECT trace_id, span_id FROM exchanges")
    assert ids(job) == row(store_path, "SELECT trace_id, span_id FROM explanations")
    assert row(store_path, "SELECT traceparent, tracestate FROM exchanges") == (CALLER, "vendor=1")
    assert row(store_path, "SELECT traceparent FROM outbox") == ("00-{}-{}-01".format(*ids(request)),)

    # the request's span continues the caller's trace
    assert ids(request)[0] == CALLER.split("-")[1]
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == CALLER.split("-")[2]
    assert request.kind is SpanKind.CLIENT

    # the job's is a root of its own, with exactly one link: to the request's
    assert job.parent is None
    assert ids(job)[0] != ids(request)[0]
    (link,) = job.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == ids(request)
    assert link.context.trace_flags.sampled

    assert job.attributes is not None
    assert job.attributes["spex.request.id"] == exchange_id
    assert job.attributes["spex.explanation.id"] == explanation.id
    (event,) = job.events
    assert event.name == "gen_ai.evaluation.result"

    rounds = named(spans, "spex round")
    assert rounds
    assert all(span.parent is not None and span.parent.span_id == job.get_span_context().span_id for span in rounds)
    assert len(spans) == 2 + len(rounds)


async def test_a_caller_without_a_trace(desk: Desk, store_path: Path) -> None:
    desk.ask(FIVE)
    await desk.explanation()
    (request,) = named(desk.spans(), "chat scripted")
    (job,) = named(desk.spans(), "spex explain scripted")
    assert request.parent is None
    assert ids(request) == row(store_path, "SELECT trace_id, span_id FROM exchanges")
    assert f"{job.links[0].context.trace_id:032x}" == ids(request)[0]


@pytest.mark.parametrize("header", ["nonsense", CALLER.replace("b7ad6b7169203331", "0" * 16), CALLER + "-more"])
async def test_a_malformed_traceparent_starts_a_trace_of_its_own(header: str, desk: Desk, store_path: Path) -> None:
    desk.ask(FIVE, traceparent=header)
    await desk.explanation()
    (request,) = named(desk.spans(), "chat scripted")
    assert request.parent is None
    assert ids(request) == row(store_path, "SELECT trace_id, span_id FROM exchanges")


async def test_an_unsampled_caller_stays_unsampled_and_linked(desk: Desk, store_path: Path) -> None:
    """Nothing is exported for it, but the ids stand in SQL."""
    desk.ask(FIVE, traceparent=CALLER[:-2] + "00")
    await desk.explanation()
    assert named(desk.spans(), "chat scripted") == []
    assert row(store_path, "SELECT trace_id, trace_sampled FROM exchanges") == (CALLER.split("-")[1], 0)
    (job,) = named(desk.spans(), "spex explain scripted")
    assert f"{job.links[0].context.trace_id:032x}" == CALLER.split("-")[1]
    assert not job.links[0].context.trace_flags.sampled


async def test_production_passes_the_callers_trace_on_and_masked_queries_carry_the_jobs(
    desk: Desk, model: ScriptedModel
) -> None:
    desk.ask(FIVE, traceparent=CALLER)
    await desk.explanation()
    (job,) = named(desk.spans(), "spex explain scripted")
    production = next(seen for seen in model.upstream.requests if seen.target == b"/v1/chat/completions")
    assert production.values(b"traceparent") == [CALLER.encode()]
    for seen in model.scoring_requests():
        (sent,) = seen.values(b"traceparent")
        assert sent.decode()[:-2] == "00-{}-{}-".format(*ids(job))  # then the flags


async def test_no_content_on_any_span(desk: Desk, model: ScriptedModel) -> None:
    """Not when all goes well, not when the server refuses, not when a plugin quotes what it failed on."""
    desk.ask(FIVE)
    await desk.explanation()
    model.always = refusing("cannot score this\nAlpha is here. Bravo is here.")
    desk.ask(FIVE)
    desk.plugins = plugins_with(SegmenterThatRaises)
    desk.recipe = replace(RECIPE, segmenter="SegmenterThatRaises")
    desk.ask(FIVE)
    assert all(report.error for report in await desk.work_off())
    jobs = named(desk.spans(), "spex explain scripted")
    assert [(job.status.status_code, job.status.description) for job in jobs] == [
        (StatusCode.UNSET, None),
        (StatusCode.ERROR, "UpstreamError"),
        (StatusCode.ERROR, "PluginError"),
    ]
    assert len(named(desk.spans(), "chat scripted")) == 3
    for span in desk.spans():
        assert not CONTENT.search(everything(span)), everything(span)


async def test_a_bug_leaves_its_type_on_the_span_and_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any) -> Any:
        raise RuntimeError("while looking at: Alpha is here.")

    monkeypatch.setattr("spex_proxy.ports.model_server.ModelServer.info", bug)
    exchange = desk.ask(FIVE)
    await desk.work_off()
    (job,) = named(desk.spans(), "spex explain scripted")
    assert (job.status.status_code, job.status.description) == (StatusCode.ERROR, "RuntimeError")
    assert job.events == ()
    reason = desk.jobs(exchange)[0].reason
    assert reason is not None
    assert reason.startswith("RuntimeError")
    assert not CONTENT.search(reason)
