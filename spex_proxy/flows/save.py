"""A captured exchange becomes rows: the exchange, and a job if it is to be explained."""

from __future__ import annotations

from sqlalchemy import Connection

from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.intake import Captured
from spex_proxy.store import exchanges, outbox


def save_captured(connection: Connection, captured: Captured, recipe: Recipe) -> None:
    """In the caller's transaction, so that there is never one without the other. Saving twice changes nothing."""
    exchange, verdict = captured.exchange, captured.verdict
    is_new = exchanges.save_captured(
        connection,
        exchange,
        trace=captured.trace,
        traceparent=captured.traceparent,
        tracestate=captured.tracestate,
        explain=verdict.explain,
        why=verdict.why,
        explain_probability=verdict.probability,
    )
    if is_new and verdict.explain:
        outbox.enqueue(
            connection,
            exchange_id=exchange.id,
            recipe=recipe,
            why=verdict.why,
            priority=outbox.Priority.ASKED if verdict.why == "header" else outbox.Priority.SAMPLED,
            traceparent=captured.trace.traceparent() if captured.trace else captured.traceparent,
            tracestate=captured.tracestate,
            project=exchange.project,
        )
