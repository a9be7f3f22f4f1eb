"""Batches that the server holds back while production is there: when the gate ends them all the same."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta

import pytest

from spex_proxy.facts.load import Production
from spex_proxy.facts.token_budget import Hours
from spex_proxy.ports.gate.gate import Gate, Kept, Leave, Turn
from spex_proxy.ports.gate.pace import Pace
from spex_proxy.ports.gate.rules import ServerLoad
from tests.unit.ports.test_gate import IDLE, STREAMING, World, asking, until


async def held(world: World, gate: Gate, turn: Turn, production: list[Production]) -> str | Kept:
    """The outcome of a question that yields, while production's readings alternate."""
    task = asking(gate, world.question, turn)
    await until(lambda: world.begun)
    number = 0
    while not task.done():
        number += 1
        world.production = production[number % len(production)]
        await asyncio.sleep(0.01)
    return await task


async def test_a_batch_whose_every_mask_is_lost_ends_and_is_asked_beside_the_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Production pauses often, and no pause is as long as one mask."""
    monkeypatch.setattr("spex_proxy.ports.gate.gate.HELD_S", 0.2)
    world, turn = World(), Turn(100, 8, "yields")
    gate = world.gate(longest_wait_s=0.05)
    kept = await held(world, gate, turn, [STREAMING, IDLE])
    assert isinstance(kept, Kept)
    assert "no pause of production's was long enough" in kept.why
    gate._pace, gate._window_at, gate._credit = Pace(rate=200.0, calm_s=0.02, windows=1), math.inf, 200.0
    world.production = STREAMING
    world.answer.set()
    assert await gate.ask(turn, world.question) == "answered"
    assert world.leave == Leave(width=1)
    assert gate.at_once(10_000) == 1
    monkeypatch.setattr("spex_proxy.ports.gate.gate.FRUITLESS_S", 0.0)  # after a while its pauses are tried again
    world.production = IDLE
    assert await gate.ask(turn, world.question) == "answered"
    assert world.leave.yields


async def test_a_batch_that_gets_on_in_pauses_is_looked_at_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("spex_proxy.ports.gate.gate.HELD_S", 0.2)
    world = World()
    gate = world.gate(longest_wait_s=0.05)
    kept = await held(world, gate, Turn(100, 8, "yields", answered=lambda: 3), [STREAMING, IDLE])
    assert isinstance(kept, Kept)
    assert "what was answered is kept" in kept.why
    world.answer.set()
    assert await gate.ask(Turn(100, 8, "yields"), world.question) == "answered"
    assert world.leave.yields


async def test_a_batch_that_is_only_slow_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spex_proxy.ports.gate.gate.HELD_S", 0.05)
    world = World()
    task = asking(world.gate(), world.question, Turn(100, 8, "yields"))
    await until(lambda: world.begun)
    await asyncio.sleep(0.2)
    assert not task.done()
    world.answer.set()
    assert await task == "answered"


async def test_production_that_only_the_server_sees_ends_a_batch_that_it_lets_nothing_of_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Captured without a relay, or through one on another host: the board is quiet."""
    monkeypatch.setattr("spex_proxy.ports.gate.gate.HELD_S", 0.1)
    world, turn = World(), Turn(100, 8, "yields", "http://one")
    gate = Gate(lambda: IDLE, lambda _: ServerLoad(0, 0.1, in_flight=2), longest_wait_s=0.05)
    kept = await gate.ask(turn, world.question)
    assert isinstance(kept, Kept)
    assert gate.at_once(10_000, "http://one") == 1
    paced = await gate.ask(turn, world.question)
    assert paced == Kept("the pace beside production's streams")
    gate._credit = 100.0
    world.answer.set()
    assert await gate.ask(turn, world.question) == "answered"
    assert world.leave == Leave(width=1)


async def test_a_batch_is_ended_when_the_hours_are_over() -> None:
    world = World()
    gate = world.gate()
    task = asking(gate, world.question, Turn(100, 8, "yields"))
    await until(lambda: world.begun)
    now = datetime.now(UTC)
    gate._hours = Hours((now + timedelta(hours=2)).time(), (now + timedelta(hours=3)).time())
    kept = await task
    assert isinstance(kept, Kept)
    assert "UTC only" in kept.why


async def test_in_a_pause_of_some_seconds_batches_are_narrow_and_later_they_are_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, turn = World(), Turn(100, 8, "yields")
    world.answer.set()
    gate = world.gate(longest_wait_s=0.05)
    world.production = STREAMING
    await gate.ask(turn, world.question)
    world.production = IDLE
    monkeypatch.setattr("spex_proxy.ports.gate.gate.PAUSES_S", 0.05)
    await asyncio.sleep(0.1)  # longer than the pauses that are waited for
    assert await gate.ask(turn, world.question) == "answered"
    assert world.leave == Leave(width=1, yields=True)
    monkeypatch.setattr("spex_proxy.ports.gate.gate.ABOUT_S", 0.05)
    assert await gate.ask(turn, world.question) == "answered"
    assert world.leave == Leave(width=None, yields=True)
