"""When background work may ask: the reasons, the pace, and a gate that waits and ends what it let in."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.load import BUCKETS, Gaps, Production, Unseen, bucket_of
from spex_proxy.facts.token_budget import Hours
from spex_proxy.ports.gate.gate import Gate, Kept, Leave, Question, Turn
from spex_proxy.ports.gate.pace import ENOUGH, LEAST, MOST, OFF_EVERY, Batch, Pace
from spex_proxy.ports.gate.rules import (
    Manner,
    ServerLoad,
    closed_by_production,
    closed_by_server,
    closed_by_the_clock,
)

IDLE = Production(0, 0, 7)
STREAMING = Production(3, 0, 7)
PREFILLING = Production(3, 1, 7)
UNSEEN = Unseen("nobody looks")


@pytest.mark.parametrize(
    ("production", "manner", "why"),
    [
        (IDLE, "alone", None),
        (IDLE, "beside", None),
        (STREAMING, "alone", "3 request"),
        (STREAMING, "beside", None),
        (PREFILLING, "alone", "first token"),
        (PREFILLING, "beside", "first token"),
        (UNSEEN, "alone", "nobody looks"),
        (UNSEEN, "beside", "nobody looks"),
    ],
)
def test_production_comes_first(production: Production | Unseen, manner: Manner, why: str | None) -> None:
    said = closed_by_production(production, manner)
    assert (said is None) if why is None else (why in str(said))


@pytest.mark.parametrize(
    ("server", "own", "why"),
    [
        (None, 0, None),
        (ServerLoad(0, 0.1), 0, None),
        (ServerLoad(8, 0.1), 8, None),
        (ServerLoad(9, 0.1), 8, "1 request"),
        (ServerLoad(9, 0.1, own=9), 0, None),
        (ServerLoad(9, 0.1, own=3), 8, "1 request"),
        (ServerLoad(0, 0.1, production=STREAMING), 0, None),
        (ServerLoad(0, 0.1, production=PREFILLING), 0, "first token"),
        (ServerLoad(0, 0.9), 0, "90%"),
        (ServerLoad(0, 0.1, since_preemption_s=1), 0, "preempted"),
        (ServerLoad(0, 0.1, since_preemption_s=60), 0, None),
        (UNSEEN, 0, "nobody looks"),
    ],
)
def test_what_the_server_says(server: ServerLoad | Unseen | None, own: int, why: str | None) -> None:
    said = closed_by_server(server, own, "beside")
    assert (said is None) if why is None else (why in str(said))


def test_the_operators_hours() -> None:
    hours = Hours(time(22), time(6))
    assert closed_by_the_clock(None, time(12)) is None
    assert closed_by_the_clock(hours, time(23)) is None
    assert "22:00 to 06:00" in str(closed_by_the_clock(hours, time(12)))


def window(gap_s: float, count: int = 100) -> Gaps:
    counts = [0] * BUCKETS
    counts[bucket_of(gap_s)] = count
    return Gaps(tuple(counts))


def test_nothing_is_asked_beside_streams_before_calm_is_known() -> None:
    pace = Pace()
    assert pace.is_off
    assert not pace.after(window(0.02), asked=0).is_off


def test_the_pace_halves_when_it_is_felt_and_grows_when_it_is_not() -> None:
    calm = Pace().after(window(0.02), asked=0)
    assert calm.after(window(0.04), asked=3).rate == calm.rate / 2
    assert calm.after(window(0.02), asked=3).rate > calm.rate


def test_few_gaps_teach_nothing() -> None:
    calm = Pace().after(window(0.02), asked=0)
    assert calm.after(window(0.3, ENOUGH - 1), asked=3).rate == calm.rate


def test_where_production_hardly_streams_the_least_pace_is_allowed() -> None:
    """Windows end without enough gaps only after the longest time: nobody would ever know how it does without us."""
    blind = Pace().after(window(0.3, 3), asked=0)
    assert not blind.is_off
    assert blind.tokens_s == LEAST
    seeing = blind.after(window(0.02), asked=3)
    assert seeing.is_off  # gaps can be told now: first without us
    assert seeing.after(window(0.02), asked=0).tokens_s == seeing.rate


@given(st.lists(st.tuples(st.floats(0.0005, 0.3), st.booleans()), max_size=200))
def test_the_pace_stays_in_its_bounds_and_rests(windows: list[tuple[float, bool]]) -> None:
    pace, offs = Pace(), 0
    for gap, asked in windows:
        offs += pace.is_off
        pace = pace.after(window(gap), asked=int(asked))
        assert LEAST <= pace.rate <= MOST
    assert offs >= len(windows) // OFF_EVERY


@given(st.lists(st.booleans(), max_size=50), st.integers(1, 16))
def test_a_batch_shrinks_and_grows_within_its_bounds(ends: list[bool], most: int) -> None:
    batch = Batch(most, most)
    for is_answered in ends:
        batch = batch.answered() if is_answered else batch.aborted(batch.size)
        assert 1 <= batch.size <= most


# ---- the gate itself ----

TURN = Turn(tokens=100, questions=8, manner="alone")


class World:
    """What the gate sees, and what was asked."""

    def __init__(self) -> None:
        self.production: Production | Unseen = IDLE
        self.begun = self.ended = 0
        self.answer = asyncio.Event()

    async def question(self, leave: Leave) -> str:
        self.leave = leave
        self.begun += 1
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.ended += 1
            raise
        return "answered"

    def gate(self, **more: float) -> Gate:
        return Gate(lambda: self.production, longest_wait_s=more.get("longest_wait_s", 30))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is a plain number
            await asyncio.sleep(0.001)


def asking(gate: Gate, question: Question[str], turn: Turn = TURN) -> asyncio.Task[str | Kept]:
    async def ask() -> str | Kept:
        return await gate.ask(turn, question)

    return asyncio.create_task(ask())


async def test_an_idle_model_is_asked_at_once() -> None:
    world = World()
    world.answer.set()
    assert await world.gate().ask(TURN, world.question) == "answered"


async def test_a_question_waits_for_production_to_end() -> None:
    world = World()
    world.answer.set()
    world.production = STREAMING
    task = asking(world.gate(), world.question)
    await asyncio.sleep(0.05)
    assert world.begun == 0
    world.production = IDLE
    assert await task == "answered"


async def test_production_ends_a_question_and_the_next_batch_is_smaller() -> None:
    world = World()
    gate = world.gate()
    task = asking(gate, world.question)
    await until(lambda: world.begun)
    world.production = PREFILLING
    kept = await task
    assert isinstance(kept, Kept)
    assert "first token" in kept.why
    assert (world.ended, gate.counts["aborted"], gate.batch.size) == (1, 1, 4)
    world.production = IDLE
    world.answer.set()
    assert await gate.ask(TURN, world.question) == "answered"
    assert gate.batch.size == 5


async def test_a_question_beside_streams_is_ended_by_whoever_waits_for_a_first_token() -> None:
    world = World()
    gate = world.gate()
    task = asking(gate, world.question, Turn(100, 1, "beside"))
    await until(lambda: world.begun)
    world.production = STREAMING
    await asyncio.sleep(0.05)
    assert not task.done()
    world.production = PREFILLING
    assert isinstance(await task, Kept)


async def test_where_production_pauses_often_nothing_is_asked_beside_its_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, turn = World(), Turn(100, 1, "beside")
    world.answer.set()
    gate = world.gate(longest_wait_s=0.05)
    gate._pace = Pace(rate=1e5, calm_s=0.02, windows=1)
    assert await gate.ask(turn, world.question) == "answered"  # in a pause
    world.production = STREAMING
    kept = await gate.ask(turn, world.question)
    assert isinstance(kept, Kept)
    assert "pauses often" in kept.why
    assert gate.at_once(10_000) == gate.batch.size  # for the next pause
    monkeypatch.setattr("spex_proxy.ports.gate.gate.PAUSES_S", 0.0)  # it pauses no more
    assert await gate.ask(turn, world.question) == "answered"


async def test_a_full_replica_keeps_nobody_from_another() -> None:
    world = World()
    world.answer.set()
    loads = {"http://one": ServerLoad(5, 0.1), "http://two": ServerLoad(0, 0.1)}
    gate = Gate(lambda: world.production, loads.__getitem__, longest_wait_s=0.05)
    full = await gate.ask(Turn(100, 8, "beside", "http://one"), world.question)
    assert isinstance(full, Kept)
    assert "5 request(s) of others" in full.why
    assert await gate.ask(Turn(100, 8, "beside", "http://two"), world.question) == "answered"


async def test_what_runs_on_one_replica_excuses_nobody_who_waits_on_another() -> None:
    world = World()
    loads = {"http://one": ServerLoad(0, 0.1), "http://two": ServerLoad(0, 0.1)}
    gate = Gate(lambda: world.production, loads.__getitem__, longest_wait_s=0.05)
    running = asking(gate, world.question, Turn(100, 8, "beside", "http://one"))
    await until(lambda: world.begun)
    loads.update({"http://one": ServerLoad(8, 0.1), "http://two": ServerLoad(8, 0.1)})
    other = await gate.ask(Turn(100, 8, "beside", "http://two"), world.question)
    assert isinstance(other, Kept)
    world.answer.set()
    assert await running == "answered"


async def test_production_that_passes_no_relay_ends_a_question_too() -> None:
    """vLLM's capture middleware counts it, and its plugin tells."""
    world = World()
    loads = {"": ServerLoad(0, 0.1, production=IDLE)}
    gate = Gate(lambda: world.production, loads.__getitem__, longest_wait_s=0.05)
    task = asking(gate, world.question)
    await until(lambda: world.begun)
    loads[""] = ServerLoad(0, 0.1, production=STREAMING)
    kept = await task
    assert isinstance(kept, Kept)
    assert "3 request(s) of production are in flight" in kept.why
    assert await gate.ask(TURN, world.question) == kept  # and keeps out the next


async def test_what_nobody_sees_keeps_the_gate_shut() -> None:
    world = World()
    world.production = UNSEEN
    assert await world.gate(longest_wait_s=0.2).ask(TURN, world.question) == Kept("nobody looks")
    assert world.begun == 0


async def test_a_question_that_fails_fails_as_it_did() -> None:
    async def question(_: Leave) -> str:
        raise ValueError("so it was")

    gate = World().gate()
    with pytest.raises(ValueError, match="so it was"):
        await gate.ask(TURN, question)


async def test_who_asks_may_be_cancelled() -> None:
    world = World()
    task = asking(world.gate(), world.question)
    await until(lambda: world.begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.ended == 1


def test_beside_streams_a_batch_is_what_the_pace_allows_in_a_moment() -> None:
    world = World()
    gate = world.gate()
    most = gate.batch.size
    assert gate.at_once(100) == most
    world.production = STREAMING
    gate._pace = Pace(rate=2000.0, calm_s=0.02, windows=1)
    assert (gate.at_once(100), gate.at_once(10_000), gate.at_once(1)) == (5, 1, most)


async def test_beside_streams_the_pace_holds() -> None:
    """Nothing before it is known how production does without us; then a second's worth of tokens, not more."""
    world = World()
    world.answer.set()
    world.production = STREAMING
    gate = world.gate(longest_wait_s=0.05)
    turn = Turn(100, 1, "beside")
    assert isinstance(await gate.ask(turn, world.question), Kept)
    gate._pace = Pace(rate=200.0, calm_s=0.02, windows=1)
    gate._window_at = math.inf  # no window ends while we look
    gate._credit = 200.0
    got = [await gate.ask(turn, world.question) for _ in range(4)]
    assert got[:2] == ["answered", "answered"]
    assert isinstance(got[3], Kept)


async def test_what_keeps_its_answers_is_asked_in_long_batches_of_narrow_steps_while_production_is_about() -> None:
    world = World()
    gate = world.gate()
    most = gate.batch.size
    task = asking(gate, world.question, Turn(100, 8, "beside"))
    await until(lambda: world.begun)
    assert world.leave == Leave()
    world.production = PREFILLING
    assert isinstance(await task, Kept)
    world.production = IDLE
    world.answer.set()
    assert await gate.ask(Turn(100, 8, "beside"), world.question) == "answered"
    assert world.leave == Leave(width=1)
    assert gate.batch.size == most


async def test_what_the_server_holds_back_itself_stays_when_production_comes_and_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, turn = World(), Turn(100, 8, "yields")
    gate = world.gate(longest_wait_s=0.05)
    task = asking(gate, world.question, turn)
    await until(lambda: world.begun)
    assert world.leave.yields
    world.production = PREFILLING
    await asyncio.sleep(0.05)
    assert not task.done()
    monkeypatch.setattr("spex_proxy.ports.gate.gate.PAUSES_S", 0.0)  # production has not paused for long
    kept = await task
    assert kept == Kept("production leaves no pauses any more")
    waiting = await gate.ask(turn, world.question)
    assert isinstance(waiting, Kept)
    assert "first token" in waiting.why  # then it is a question like others
    gate._pace, gate._window_at, gate._credit = Pace(rate=200.0, calm_s=0.02, windows=1), math.inf, 200.0
    world.production = STREAMING
    world.answer.set()
    assert await gate.ask(turn, world.question) == "answered"
    assert not world.leave.yields


async def test_what_the_server_holds_back_itself_is_ended_when_nobody_sees_production() -> None:
    world = World()
    task = asking(world.gate(), world.question, Turn(100, 8, "yields"))
    await until(lambda: world.begun)
    world.production = UNSEEN
    assert await task == Kept("nobody looks")
