"""OpenTelemetry: every span, attribute and event name of ours, and the few calls that use them.

One trace for the request, in the caller's trace if there is one; a new root trace
for the job, LINKED to the request's span (a job minutes later is no child of it);
one child span a round of masks. Content never goes on a span: it stays in SQL,
where it can be erased. Without an OTLP endpoint spans are made, so that their ids
stand in SQL, and sent nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spex_proxy.facts.exchange import Exchange, TraceRef
from spex_proxy.facts.explanation import Explanation

# GenAI semantic conventions (semantic-conventions-genai, status Development).
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
EVALUATION = "gen_ai.evaluation.result"
EVALUATION_NAME = "gen_ai.evaluation.name"
EVALUATION_SCORE = "gen_ai.evaluation.score.value"
EVALUATION_LABEL = "gen_ai.evaluation.score.label"
# OpenInference (spec/annotations.md: a result about an ended span goes on a linked carrier span).
OPENINFERENCE_KIND = "openinference.span.kind"
ANNOTATION = "annotations.0.annotation."
# Ours.
SPEX_REQUEST = "spex.request.id"
SPEX_EXPLANATION = "spex.explanation.id"
SPEX_JOB = "spex.job.id"
SPEX_PROJECT = "spex.project"
SPEX_ROUND = "spex.round"
SPEX_MASKS = "spex.masks"
SPEX_TOKENS = "spex.prompt_tokens"
SPEX_VERDICT = "spex.verdict"

OPERATIONS = {"chat": "chat", "completion": "text_completion", "response": "chat", "message": "chat"}
_PROPAGATOR = TraceContextTextMapPropagator()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Telemetry:
    """Spans of one process. Never global: tests and wiring hand one in."""

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("spex_proxy", version)

    def request_span(self, exchange: Exchange, traceparent: str | None, tracestate: str | None) -> TraceRef | None:
        """Record the span of a request that is over. Made from the capture, off the relay path.

        Returns its ids, or None if there is nothing to link to.
        """
        attributes: dict[str, Any] = {
            OPERATION: OPERATIONS[exchange.kind],
            PROVIDER: "openai",
            REQUEST_MODEL: exchange.model,
            REQUEST_STREAM: exchange.streamed,
            SPEX_REQUEST: exchange.id,
            SPEX_PROJECT: exchange.project,
            FIRST_CHUNK: exchange.first_byte_s,
            RESPONSE_ID: exchange.upstream_id,
            FINISH_REASONS: [exchange.finish_reason] if exchange.finish_reason else None,
            INPUT_TOKENS: exchange.prompt_tokens,
            OUTPUT_TOKENS: exchange.output_tokens,
        }
        span = self._tracer.start_span(
            f"{OPERATIONS[exchange.kind]} {exchange.model}",
            context=_incoming(traceparent, tracestate),
            kind=SpanKind.CLIENT,
            attributes={key: value for key, value in attributes.items() if value is not None},
            start_time=_nanoseconds(exchange.received_at),
        )
        span.end(_nanoseconds(exchange.received_at + timedelta(seconds=exchange.duration_s)))
        return reference(span)

    @contextmanager
    def job_span(self, exchange: Exchange, job_id: str | None, request: TraceRef | None) -> Iterator[Span]:
        """A new root trace for one explanation, with exactly one Link, to the request's span."""
        attributes = {
            OPENINFERENCE_KIND: "EVALUATOR",
            SPEX_REQUEST: exchange.id,
            SPEX_PROJECT: exchange.project,
            **({SPEX_JOB: job_id} if job_id else {}),
        }
        with (
            self._tracer.start_as_current_span(
                f"spex explain {exchange.model}",
                context=Context(),  # whatever is current, the job is nobody's child
                kind=SpanKind.INTERNAL,
                attributes=attributes,
                links=[_link(request)] if request else [],
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            _failures_named(span),
        ):
            yield span

    @contextmanager
    def round_span(self, number: int, masks: int) -> Iterator[Span]:
        """One round of masks, child of the job's span. Not one a mask: that would swamp a backend."""
        with (
            self._tracer.start_as_current_span(
                "spex round",
                attributes={SPEX_ROUND: number, SPEX_MASKS: masks},
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            _failures_named(span),
        ):
            yield span

    def close(self) -> None:
        """Send what waits, then stop."""
        self._provider.shutdown()


def record_result(span: Span, explanation: Explanation) -> None:
    """Put the outcome on the job's span: as a GenAI evaluation event and an OpenInference annotation."""
    score = {EVALUATION_NAME: "spex.faithfulness", EVALUATION_LABEL: explanation.verdict}
    span.set_attribute(SPEX_EXPLANATION, explanation.id)
    span.set_attribute(SPEX_VERDICT, explanation.verdict)
    span.set_attribute(SPEX_MASKS, explanation.cost.masks)
    span.set_attribute(SPEX_TOKENS, explanation.cost.prompt_tokens)
    span.set_attribute(f"{ANNOTATION}name", "spex.faithfulness")
    span.set_attribute(f"{ANNOTATION}label", explanation.verdict)
    span.set_attribute(f"{ANNOTATION}score", explanation.fidelity.r2)
    span.set_attribute(f"{ANNOTATION}annotator_kind", "CODE")
    span.set_attribute(f"{ANNOTATION}identifier", explanation.id)
    span.add_event(EVALUATION, {**score, EVALUATION_SCORE: explanation.fidelity.r2})


def record_failure(span: Span, reason: str) -> None:
    """Mark a job's span as failed. The reason names no content."""
    span.set_status(Status(StatusCode.ERROR, reason))


@contextmanager
def _failures_named(span: Span) -> Iterator[None]:
    """Whatever is raised marks the span as failed, by its type alone: OpenTelemetry's own way
    would put the message and a stack trace on the span, and they may quote content."""
    try:
        yield
    except BaseException as error:
        record_failure(span, type(error).__name__)
        raise


def reference(span: Span) -> TraceRef | None:
    """The ids of a span, ready for SQL."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return TraceRef(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)


def headers_of(span: Span) -> Mapping[str, str]:
    """`traceparent` that makes the server's own spans children of `span`."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return carrier


def make_provider(
    version: str, otlp_endpoint: str | None = None, exporter: SpanExporter | None = None
) -> TracerProvider:
    """A provider that sends to `otlp_endpoint` (OTLP over HTTP), to `exporter` (tests), or nowhere."""
    provider = TracerProvider(resource=Resource({"service.name": "spex-proxy", "service.version": version}))
    if exporter is None and otlp_endpoint:
        exporter = OTLPSpanExporter(endpoint=f"{otlp_endpoint.rstrip('/')}/v1/traces")
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _incoming(traceparent: str | None, tracestate: str | None) -> Context:
    """The caller's trace context, or an empty one if it sent none or a malformed one."""
    carrier = {"traceparent": traceparent, "tracestate": tracestate}
    return _PROPAGATOR.extract({k: v for k, v in carrier.items() if v is not None}, context=Context())


def _link(request: TraceRef) -> Link:
    context = SpanContext(
        int(request.trace_id, 16),
        int(request.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if request.is_sampled else TraceFlags.DEFAULT),
    )
    return Link(context)


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
