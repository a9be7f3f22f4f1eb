"""A captured exchange becomes rows: the exchange, and a job if it is to be explained."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sqlalchemy import Connection

from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import Rule, Window
from spex_proxy.flows.intake import Captured
from spex_proxy.store import exchanges, outbox, rules

Saved = Literal["known", "kept", "capped", "explain"]
"""What became of it: nothing, for it was there; kept; kept, but its rule has no jobs left; kept, with a job."""


def save_captured(connection: Connection, captured: Captured, recipe: Recipe) -> Saved:
    """In the caller's transaction, so that there is never one without the other. Saving twice changes nothing.

    `recipe` is for verdicts without a rule.
    """
    exchange, verdict = captured.exchange, captured.verdict
    if exchanges.is_known(connection, exchange.id, project=exchange.project):
        return "known"
    is_capped = (
        verdict.explain
        and verdict.why != "header"
        and verdict.rule is not None
        and not _has_room(connection, captured, verdict.rule)
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
        return "explain"
    return "capped" if is_capped else "kept"


def _has_room(connection: Connection, captured: Captured, rule: Rule) -> bool:
    """Take one of the rule's jobs of this minute and day, by the time when the request arrived."""
    at, project = captured.exchange.received_at, captured.exchange.project
    caps: tuple[tuple[Window, int | None], ...] = (("minute", rule.per_minute), ("day", rule.per_day))
    for window, most in caps:
        if most is not None and not rules.take(connection, rule.name, window, at, most, project=project):
            return False
    return True
