"""Captured exchanges become rows: each exchange, and a job if it is to be explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from sqlalchemy import Connection

from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.rules import Window
from spex_proxy.flows.intake import Captured
from spex_proxy.store import exchanges, outbox, rules

Saved = Literal["known", "kept", "capped", "explain"]
"""What became of it: nothing, for it was there; kept; kept, but its rule has no jobs left; kept, with a job."""


def save_captured(connection: Connection, batch: Sequence[Captured], recipe: Recipe) -> list[Saved]:
    """In the caller's transaction, so that there is never one without the other. Saving twice changes nothing.

    What became of each, in order. `recipe` is for verdicts without a rule.
    """
    seen = exchanges.known_among(connection, [captured.exchange for captured in batch])
    saved: list[Saved] = []
    fresh: list[Captured] = []
    for captured in batch:
        if captured.exchange.id in seen:
            saved.append("known")
            continue
        seen.add(captured.exchange.id)
        verdict = captured.verdict
        if is_capped := verdict.explain and not _has_room(connection, captured):
            verdict = replace(verdict, explain=False, why="capped")
        fresh.append(replace(captured, verdict=verdict))
        saved.append("capped" if is_capped else "explain" if verdict.explain else "kept")
    new = exchanges.save_captured(connection, [_kept(captured) for captured in fresh])
    for captured in fresh:
        if captured.verdict.explain and captured.exchange.id in new:
            _enqueue(connection, captured, recipe)
    if len(new) < len(fresh):  # another process was faster, between two statements
        late = {captured.exchange.id for captured in fresh} - new
        saved = ["known" if one.exchange.id in late else what for one, what in zip(batch, saved, strict=True)]
    return saved


def _kept(captured: Captured) -> exchanges.Kept:
    verdict = captured.verdict
    return exchanges.Kept(
        captured.exchange,
        trace=captured.trace,
        traceparent=captured.traceparent,
        tracestate=captured.tracestate,
        explain=verdict.explain,
        why=verdict.why,
        explain_probability=verdict.probability,
        rule=verdict.rule.name if verdict.rule else None,
        rules_digest=verdict.rules_digest,
    )


def _enqueue(connection: Connection, captured: Captured, recipe: Recipe) -> None:
    exchange, verdict = captured.exchange, captured.verdict
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


def _has_room(connection: Connection, captured: Captured) -> bool:
    """Take one of the rule's jobs of this minute and day, by the time when the request arrived.

    What a caller asks for needs none.
    """
    rule = captured.verdict.rule
    if rule is None or captured.verdict.why == "header":
        return True
    at, project = captured.exchange.received_at, captured.exchange.project
    caps: tuple[tuple[Window, int | None], ...] = (("minute", rule.per_minute), ("day", rule.per_day))
    for window, most in caps:
        if most is not None and not rules.take(connection, rule.name, window, at, most, project=project):
            return False
    return True
