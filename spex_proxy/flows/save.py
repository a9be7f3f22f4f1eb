"""A captured exchange becomes rows: the exchange, and a job if it is to be explained."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sqlalchemy import Connection

from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.acting import Orders, has_room
from spex_proxy.flows.intake import Captured
from spex_proxy.store import exchanges, flags, outbox

Saved = Literal["known", "kept", "capped", "explain"]
"""What became of it: nothing, for it was there; kept; kept, but its rule has no jobs left; kept, with a job."""


def save_captured(connection: Connection, captured: Captured, recipe: Recipe, orders: Orders | None = None) -> Saved:
    """In the caller's transaction, so that there is never one without the other. Saving twice changes nothing.

    `recipe` is for verdicts without a rule. With `orders`, what was noted of it is done.
    """
    exchange, verdict = captured.exchange, captured.verdict
    if exchanges.is_known(connection, exchange.id, project=exchange.project):
        return "known"
    is_capped = (
        verdict.explain
        and verdict.why != "header"
        and verdict.rule is not None
        and not has_room(connection, exchange, verdict.rule)
    )
    if is_capped:
        verdict = replace(verdict, explain=False, why="capped")
    is_new = exchanges.save_captured(
        connection,
        exchange,
        trace=captured.trace,
        traceparent=captured.traceparent,
        tracestate=captured.tracestate,
        explain=verdict.explain,
        why=verdict.why,
        explain_probability=verdict.probability,
        rule=verdict.rule.name if verdict.rule else None,
        rules_digest=verdict.rules_digest,
    )
    if not is_new:  # another process was faster, between the two statements
        return "known"
    if verdict.explain:
        sampled = verdict.rule.priority if verdict.rule else outbox.Priority.SAMPLED
        outbox.enqueue(
            connection,
            exchange_id=exchange.id,
            recipe=verdict.rule.recipe if verdict.rule else recipe,
            why=verdict.why,
            priority=outbox.Priority.ASKED if verdict.why == "header" else sampled,
            traceparent=captured.trace.traceparent() if captured.trace else captured.traceparent,
            tracestate=captured.tracestate,
            project=exchange.project,
        )
    if orders is not None:
        _flag(connection, captured, orders)
    if verdict.explain:
        return "explain"
    return "capped" if is_capped else "kept"


def _flag(connection: Connection, captured: Captured, orders: Orders) -> None:
    exchange, noted = captured.exchange, captured.noted
    for position, flag in enumerate(noted.flags):
        flags.raise_on_exchange(
            connection, exchange.id, flag, exchange.received_at, position=position,
            key=f"{position} {flag.flagger} {flag.name}", project=exchange.project,
        )  # fmt: skip
    orders.carry_out(connection, exchange, noted, {flag.name for flag in noted.flags})
