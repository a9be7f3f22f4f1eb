"""Spans as a backend receives them: whose trace, which names, one Link, and no content anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.exchange import TraceRef
from spex_proxy.ports.telemetry import Telemetry, headers_of, make_provider, record_failure, record_result, reference
from tests.unit.examples import NOON, an_exchange, an_explanation

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = TraceRef("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7")


class Backend:
    """Telemetry of ours, and what arrives at the other end."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.telemetry = Telemetry(make_provider("0.1.0", exporter=self.exporter), "0.1.0")

    def spans(self) -> list[ReadableSpan]:
        self.telemetry.close()
        return list(self.exporter.get_finished_spans())

    def span(self) -> ReadableSpan:
        (one,) = self.spans()
        return one


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.telemetry.close()


def ids(span: ReadableSpan) -> TraceRef:
    context = span.get_span_context()
    assert context is not None
    return TraceRef(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in (span.attributes or {}).items()}


# --- the request's span


def test_the_request_is_in_the_callers_trace(backend: Backend) -> None:
    found = backend.telemetry.request_span(an_exchange(), CALLER, "vendor=1,other=2")
    span = backend.span()
    assert ids(span) == found
    assert found is not None
    assert found.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.context is not None
    assert span.context.trace_state.to_header() == "vendor=1,other=2"


def test_its_names_are_those_of_the_genai_conventions(backend: Backend) -> None:
    backend.telemetry.request_span(an_exchange(), CALLER, None)
    span = backend.span()
    assert span.name == "chat tiny"
    assert span.kind is SpanKind.CLIENT
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.stream": False,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.125,
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 3,
        "spex.request.id": "0199b3c5-0000-7000-8000-000000000001",
        "spex.project": "default",
    }
    assert span.resource.attributes["service.name"] == "spex-proxy"
    assert span.resource.attributes["service.version"] == "0.1.0"


def test_what_the_server_did_not_say_is_left_out(backend: Backend) -> None:
    silent = an_exchange(
        kind="completion", upstream_id=None, finish_reason=None, prompt_tokens=None, output_tokens=None
    )
    backend.telemetry.request_span(silent, None, None)
    span = backend.span()
    assert span.name == "text_completion tiny"
    assert set(attributes(span)) == {
        "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.request.stream",
        "gen_ai.response.time_to_first_chunk", "spex.request.id", "spex.project",
    }  # fmt: skip


def test_no_tokens_are_not_unknown_tokens(backend: Backend) -> None:
    backend.telemetry.request_span(an_exchange(output_tokens=0), None, None)
    assert attributes(backend.span())["gen_ai.usage.output_tokens"] == 0


def test_it_stands_at_the_time_of_the_request_not_of_its_recording(backend: Backend) -> None:
    backend.telemetry.request_span(an_exchange(), None, None)
    span = backend.span()
    began = int(NOON.replace(microsecond=0).timestamp()) * 10**9 + 250_000_000
    assert (span.start_time, span.end_time) == (began, began + 500_000_000)


@pytest.mark.parametrize(
    "traceparent",
    [None, "", "nonsense", CALLER[:-3], "00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff" + CALLER[2:], CALLER.upper()],
)
def test_without_a_callers_trace_it_is_a_root(backend: Backend, traceparent: str | None) -> None:
    with trace.use_span(trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)):
        found = backend.telemetry.request_span(an_exchange(), traceparent, None)
    assert found is not None
    assert found.trace_id != "0af7651916cd43dd8448eb211c80319c"
    assert backend.span().parent is None


def test_a_caller_who_does_not_sample_is_obeyed_and_can_still_be_linked_to(backend: Backend) -> None:
    found = backend.telemetry.request_span(an_exchange(), CALLER[:-2] + "00", None)
    assert found is not None
    assert (found.trace_id, found.is_sampled) == ("0af7651916cd43dd8448eb211c80319c", False)
    assert backend.spans() == []


# --- the job's span


def test_the_job_is_a_root_with_one_link_to_the_request(backend: Backend) -> None:
    request = backend.telemetry.request_span(an_exchange(), CALLER, None)
    with backend.telemetry.job_span(an_exchange(), "job-1", request) as span:
        inside = reference(span)
    sent, job = backend.spans()
    assert ids(sent) == request
    assert ids(job) == inside
    assert job.parent is None
    assert ids(job).trace_id != ids(sent).trace_id
    (link,) = job.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (ids(sent).trace_id, ids(sent).span_id)
    assert link.context.trace_flags.sampled
    assert job.kind is SpanKind.INTERNAL
    assert job.name == "spex explain tiny"
    assert attributes(job) == {
        "openinference.span.kind": "EVALUATOR",
        "spex.request.id": "0199b3c5-0000-7000-8000-000000000001",
        "spex.project": "default",
        "spex.job.id": "job-1",
    }
    assert job.status.status_code is StatusCode.UNSET


def test_a_link_survives_a_restart(backend: Backend) -> None:
    """Out of SQL come ids, not spans; also of a request that was not sampled."""
    unsampled = TraceRef(REQUEST.trace_id, REQUEST.span_id, is_sampled=False)
    with backend.telemetry.job_span(an_exchange(), None, unsampled):
        pass
    job = backend.span()
    (link,) = job.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (REQUEST.trace_id, REQUEST.span_id)
    assert not link.context.trace_flags.sampled
    assert "spex.job.id" not in attributes(job)
    assert ids(job).is_sampled


def test_without_a_request_span_there_is_no_link(backend: Backend) -> None:
    with backend.telemetry.job_span(an_exchange(), None, None):
        pass
    assert backend.span().links == ()


def test_the_job_is_nobodys_child_and_its_rounds_are_its_children(backend: Backend) -> None:
    with (
        backend.telemetry.job_span(an_exchange(), "outer", None),
        backend.telemetry.job_span(an_exchange(), "inner", REQUEST),
        backend.telemetry.round_span(2, 64),
    ):
        pass
    round_, inner, outer = backend.spans()
    assert inner.parent is None
    assert ids(inner).trace_id != ids(outer).trace_id
    assert round_.parent is not None
    assert f"{round_.parent.span_id:016x}" == ids(inner).span_id
    assert ids(round_).trace_id == ids(inner).trace_id
    assert (round_.name, attributes(round_)) == ("spex round", {"spex.round": 2, "spex.masks": 64})


def test_the_servers_spans_become_children_of_the_job(backend: Backend) -> None:
    with backend.telemetry.job_span(an_exchange(), None, REQUEST) as span:
        headers = headers_of(span)
    found = ids(backend.span())
    version, trace_id, span_id, flags = headers["traceparent"].split("-")
    assert (version, trace_id, span_id) == ("00", found.trace_id, found.span_id)
    assert int(flags, 16) & 1  # sampled; another bit tells that the id is random
    assert set(headers) == {"traceparent"}


def test_the_result_as_event_and_annotation(backend: Backend) -> None:
    with backend.telemetry.job_span(an_exchange(), "job-1", REQUEST) as span:
        record_result(span, an_explanation())
    job = backend.span()
    (event,) = job.events
    assert event.name == "gen_ai.evaluation.result"
    assert dict(event.attributes or {}) == {
        "gen_ai.evaluation.name": "spex.faithfulness",
        "gen_ai.evaluation.score.label": "reliable",
        "gen_ai.evaluation.score.value": 0.987,
    }
    explanation_id = "ab12cd34ef56ab12cd34ef56ab12cd34"
    assert attributes(job) == {
        "openinference.span.kind": "EVALUATOR",
        "spex.request.id": "0199b3c5-0000-7000-8000-000000000001",
        "spex.project": "default",
        "spex.job.id": "job-1",
        "spex.explanation.id": explanation_id,
        "spex.verdict": "reliable",
        "spex.masks": 42,
        "spex.prompt_tokens": 12345,
        "annotations.0.annotation.name": "spex.faithfulness",
        "annotations.0.annotation.label": "reliable",
        "annotations.0.annotation.score": 0.987,
        "annotations.0.annotation.annotator_kind": "CODE",
        "annotations.0.annotation.identifier": explanation_id,
    }


# --- no content


SECRET = "the patient's name is Ada"


@pytest.mark.parametrize("error", [CannotExplain(SECRET), ValueError(SECRET), asyncio.CancelledError(SECRET)])
def test_a_failure_is_named_by_its_type_alone(backend: Backend, error: BaseException) -> None:
    """An error's message may quote content: neither it nor a stack trace goes on a span."""
    with (
        pytest.raises(type(error)),
        backend.telemetry.job_span(an_exchange(), "job-1", REQUEST),
        backend.telemetry.round_span(0, 8),
    ):
        raise error
    spans = backend.spans()
    assert len(spans) == 2
    for span in spans:
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == type(error).__name__
        assert span.events == ()
        assert SECRET not in span.to_json()


def test_a_failure_that_is_recorded_beforehand_is_kept(backend: Backend) -> None:
    with backend.telemetry.job_span(an_exchange(), "job-1", REQUEST) as span:
        record_failure(span, "UpstreamBusy")
    job = backend.span()
    assert (job.status.status_code, job.status.description) == (StatusCode.ERROR, "UpstreamBusy")


def test_no_span_holds_content(backend: Backend) -> None:
    exchange = an_exchange(output_text=SECRET, request={"messages": [{"role": "user", "content": SECRET}]})
    request = backend.telemetry.request_span(exchange, CALLER, None)
    with backend.telemetry.job_span(exchange, "job-1", request) as span, backend.telemetry.round_span(0, 8):
        record_result(span, an_explanation())
    everything = "".join(span.to_json() for span in backend.spans())
    for content in (SECRET, "The bell", "Where is", "In Oslo"):
        assert content not in everything


def test_without_an_endpoint_ids_are_made_and_nothing_is_sent() -> None:
    telemetry = Telemetry(make_provider("0.1.0"), "0.1.0")
    found = telemetry.request_span(an_exchange(), CALLER, None)
    assert found is not None
    assert found.trace_id == "0af7651916cd43dd8448eb211c80319c"
    telemetry.close()
