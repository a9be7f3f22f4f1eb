"""Together or alone."""

from __future__ import annotations

import asyncio

from spex_proxy.flows.company import Company


async def test_one_that_is_alone_has_no_company() -> None:
    company, inside, most = Company(), [0, 0], [0, 0]

    async def run(kind: int) -> None:
        async with company.alone() if kind else company.together():
            inside[kind] += 1
            most[kind] = max(most[kind], inside[kind])
            assert not (inside[0] and inside[1])
            await asyncio.sleep(0.001)
            inside[kind] -= 1

    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(run(number % 5 == 0))
    assert inside == [0, 0]
    assert most[0] > 1
    assert most[1] == 1


async def test_who_waits_to_be_alone_waits_for_no_newcomers_and_may_give_up() -> None:
    company, order = Company(), list[str]()

    async def run(name: str, alone: bool) -> None:
        async with company.alone() if alone else company.together():
            order.append(name)
            await asyncio.sleep(0.01)

    first = asyncio.create_task(run("first", False))
    await asyncio.sleep(0)
    gives_up = asyncio.create_task(run("gives up", True))
    alone = asyncio.create_task(run("alone", True))
    await asyncio.sleep(0)
    late = asyncio.create_task(run("late", False))
    await asyncio.sleep(0)
    gives_up.cancel()
    await asyncio.wait({first, gives_up, alone, late}, timeout=5)
    assert order == ["first", "alone", "late"]
