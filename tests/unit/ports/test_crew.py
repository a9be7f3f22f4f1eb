"""Several processes' counters as one: asked over real socket pairs, kept when a process is gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from spex_proxy.ports.counters import COUNTERS, GAUGES, Counters
from spex_proxy.ports.crew import Crew, total
from spex_proxy.ports.link import Told, answer


class Child:
    """The other end of a link, as a relay process holds it."""

    def __init__(self, crew: Crew, **troubles: str) -> None:
        self.counters = Counters()
        self.counters.watch("relay_processes", lambda: 1)
        ours, theirs = socket.socketpair()
        crew.joined(ours)
        self._task = asyncio.create_task(answer(theirs.detach(), lambda: Told(self.counters.snapshot(), troubles)))

    async def die(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture(params=[False, True], ids=["best_effort", "durable"])
async def crew(request: pytest.FixtureRequest) -> AsyncIterator[Crew]:
    crew = Crew(Counters(), is_durable=request.param)
    yield crew
    await crew.close()


async def look(crew: Crew) -> dict[str, object]:
    return dict(await asyncio.to_thread(crew.snapshot))


async def test_numbers_are_added_up_and_troubles_told_of_any(crew: Crew) -> None:
    one, other = Child(crew), Child(crew, rules="line 5")
    for child, count in ((one, 2), (other, 3)):
        child.counters.add("stored_exchanges", by=count)
        child.counters.add("relayed_requests", "2xx", count)
        child.counters.watch("rules_stale", lambda: 1)
    other.counters.add("relayed_requests", "4xx")
    await look(crew)
    seen = await look(crew)
    assert seen["stored_exchanges"] == 5
    assert seen["relayed_requests"] == {"2xx": 5, "4xx": 1}
    assert seen["rules_stale"] == 1
    assert seen["relay_processes"] == crew.serving == 2
    assert (crew.trouble("rules"), crew.trouble("store")) == ("line 5", None)
    text = (await asyncio.to_thread(crew.exposition)).decode()
    assert 'spex_relayed_requests_total{outcome="2xx"} 5.0' in text
    assert "spex_stored_exchanges_total 5.0" in text
    assert all(f"# HELP {m.exported}" in text for m in COUNTERS + GAUGES)
    for child in (one, other):
        await child.die()


async def test_of_one_that_dies_the_counters_stay_and_what_waited_is_accounted_for(crew: Crew) -> None:
    dies, lives = Child(crew), Child(crew)
    dies.counters.add("offered_exchanges", by=10)
    dies.counters.add("stored_exchanges", by=6)
    dies.counters.add("skipped_exchanges", "not_json", 1)
    dies.counters.watch("intake_queue_items", lambda: 3)
    lives.counters.add("offered_exchanges", by=1)
    lives.counters.add("stored_exchanges", by=1)
    await look(crew)
    before = await look(crew)
    assert before["intake_queue_items"] == 3
    await dies.die()
    async with asyncio.timeout(10):
        while crew.serving > 1:  # noqa: ASYNC110 - the end of a stream, and no event tells
            await asyncio.sleep(0.01)
    after = await look(crew)
    assert (after["offered_exchanges"], after["stored_exchanges"], after["intake_queue_items"]) == (11, 7, 0)
    lost, left = after["dropped_exchanges"], after["left_exchanges"]
    assert (lost, left) in (({"process_died": 3}, 0), ({}, 3))
    await lives.die()


async def test_who_never_answered_counts_for_nothing(crew: Crew) -> None:
    ours, theirs = socket.socketpair()
    crew.joined(ours)
    assert crew.serving == 0
    theirs.close()
    assert not any((await look(crew)).values())


def test_nothing_is_the_sum_of_nobody() -> None:
    assert total([]) == {}
    assert total([{"stored_exchanges": 1.0, "of another version": 5.0}]) == {"stored_exchanges": 1.0}
