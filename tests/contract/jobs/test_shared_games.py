"""One game, several workers: they share its masks, and what one of them answered outlives it. On both databases."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.game import enqueue_game, store_game
from spex_proxy.flows.share import Share
from spex_proxy.flows.transactions import write
from spex_proxy.flows.work import run_job
from spex_proxy.plug.kinds import Measured
from spex_proxy.store import explanations, outbox
from spex_proxy.store.connect import open_store, reading
from tests.contract.jobs.test_control import until
from tests.story.explaining import Desk
from tests.story.games import NAMES, Planted, plugins

TERMS = [[[0], 2.0], [[1, 3], 3.0], [[4], -1.0]]
RECIPE = Recipe(budget=200, target_r2=1.0, replicates=2)
COALITIONS = 2 ** len(NAMES) + 1


@pytest.fixture
def desk(database: Callable[[bool], str]) -> Iterator[Desk]:
    Planted.asked.clear()
    store = open_store(database(True))
    made = Desk("http://127.0.0.1:9", store, RECIPE, plugins=plugins())
    yield made
    made.close()
    store.dispose()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[bytes]]:
    """Which masks each game object was asked, slowly, four at a time."""
    asked: dict[int, list[bytes]] = {}
    measure = Planted.measure
    lock = threading.Lock()

    def slowly(self: Planted, masks: NDArray[np.bool_]) -> Measured:
        with lock:
            asked.setdefault(id(self), []).extend(row.tobytes() for row in masks)
        time.sleep(0.05)
        return measure(self, masks)

    monkeypatch.setattr(Planted, "measure", slowly)
    return asked


async def queued(desk: Desk, shares: int) -> None:
    with desk.parts() as parts:
        stored = await store_game("planted", {"terms": TERMS, "batch": 4}, parts, project="default")
        await enqueue_game(stored, RECIPE, parts, shares)


async def worker(desk: Desk, name: str) -> None:
    """Works until nothing is queued."""
    with desk.parts() as parts:
        while (job := await write(desk.store, outbox.claim, name)) is not None:
            await run_job(job, parts, desk.reports.append)


def checked(desk: Desk) -> None:
    """The one explanation is what was planted, cites everything, and follows from its evidence."""
    with reading(desk.store) as connection:
        (found,) = connection.exec_driver_sql("SELECT id FROM explanations").scalars()
        explanation = explanations.load_explanation(connection, found)
        states = connection.exec_driver_sql("SELECT kind, state, explanation_id FROM outbox ORDER BY kind").all()
    worth = {i.players: i.moebius for i in explanation.interactions if abs(i.moebius) > 1e-9}
    assert worth == pytest.approx({(0,): 2, (1, 3): 3, (4,): -1})
    assert all(check.is_passed and not check.is_skipped for check in desk.checks(found))
    assert {tuple(state) for state in states} == {("explain", "done", found), ("share", "done", None)}


async def test_two_workers_share_the_masks_of_one_game(desk: Desk, measured: dict[int, list[bytes]]) -> None:
    await queued(desk, shares=2)
    await asyncio.gather(worker(desk, "one"), worker(desk, "two"))
    checked(desk)
    counts = sorted(len(asked) for asked in measured.values())
    assert len(counts) == 2
    assert counts[0] >= COALITIONS / 4, "each did its part"
    often = Counter(mask for asked in measured.values() for mask in asked)
    assert sum(often.values()) - COALITIONS <= 8, "two batches at most were asked by both, where they met"


async def test_a_worker_that_dies_loses_no_answered_mask(desk: Desk, measured: dict[int, list[bytes]]) -> None:
    await queued(desk, shares=2)
    dying = asyncio.create_task(worker(desk, "dying"))
    other = asyncio.create_task(worker(desk, "other"))
    await until(lambda: sum(map(len, measured.values())) >= 24)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    with desk.store.begin() as connection:
        assert outbox.requeue_running(connection, "dying") == 1
    await other
    await worker(desk, "next")
    checked(desk)
    often = Counter(mask for asked in measured.values() for mask in asked)
    assert sum(often.values()) - COALITIONS <= 12, "a batch in flight, and those where they met"


def test_parts_are_a_partition_and_each_asks_its_own_first() -> None:
    masks = np.random.Generator(np.random.PCG64(3)).random((40, 9)) < 0.5
    replicates = np.arange(40) % 3
    orders = [Share(part, 3).order(masks, replicates) for part in range(3)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    again = [Share(part, 3).order(masks[::-1], replicates[::-1]) for part in range(3)]
    for part, (one, other) in enumerate(zip(orders, again, strict=True)):
        assert [(masks[i].tobytes(), replicates[i]) for i in one] == [
            (masks[::-1][i].tobytes(), replicates[::-1][i]) for i in other
        ], part
    own = [set(order[:8].tolist()) for order in orders]
    assert sum(map(len, own)) == len(own[0] | own[1] | own[2])
