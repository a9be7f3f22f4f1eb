"""Captured exchanges become rows: each exchange, and a job if it is to be explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from sqlalchemy import Connection

from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.acting import Orders, has_room
from spex_proxy.flows.understand import Captured
from spex_proxy.store import exchanges, flags, outbox

Saved = Literal["known", "kept", "capped", "explain"]
"""What became of it: nothing, for it was there; kept; kept, but its rule has no jobs left; kept, with a job."""


def save_captured(
    connection: Connection, batch: Sequence[Captured], recipe: Recipe, orders: Orders | None = None
) -> list[Saved]:
    """In the caller's transaction, so that there is never one without the other. Saving twice changes nothing.

    What became of each, in order. `recipe` is for verdicts without a rule. With `orders`, what was noted is done.
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
        if captured.exchange.id in new:
            _follow(connection, captured, recipe, orders)
    if len(new) < len(fresh):  # another process was faster, between two statements
        late = {captured.exchange.id for captured in fresh} - new
        saved = ["known" if one.exchange.id in late else what for one, what in zip(batch, saved, strict=True)]
    return saved


def _follow(connection: Connection, captured: Captured, recipe: Recipe, orders: Orders | None) -> None:
    """What a new exchange brings with it: its job, its flags, and what rules do about them."""
    if captured.verdict.explain:
        _enqueue(connection, captured, recipe)
    if orders is not None:
        _flag(connection, captured, orders)


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
    """What a caller asks for needs no room."""
    rule = captured.verdict.rule
    return rule is None or captured.verdict.why == "header" or has_room(connection, captured.exchange, rule)


def _flag(connection: Connection, captured: Captured, orders: Orders) -> None:
    exchange, noted = captured.exchange, captured.noted
    for position, flag in enumerate(noted.flags):
        flags.raise_on_exchange(
            connection, exchange.id, flag, exchange.received_at, position=position,
            key=f"{position} {flag.flagger} {flag.name}", project=exchange.project,
        )  # fmt: skip
    orders.carry_out(connection, exchange, noted, {flag.name for flag in noted.flags})
