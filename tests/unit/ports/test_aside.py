"""Work beside production's loop: it ends when told to, and its failures arrive."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from spex_proxy.facts.errors import NotFound, SpexError
from spex_proxy.ports.aside import in_own_process, on_own_loop


async def test_it_runs_on_another_thread_until_it_is_told_to_stop() -> None:
    stop, started, threads = asyncio.Event(), threading.Event(), []

    async def run(own: asyncio.Event) -> None:
        threads.append(threading.get_ident())
        started.set()
        await own.wait()
        threads.append(0)

    aside = asyncio.create_task(on_own_loop(run, stop))
    assert await asyncio.to_thread(started.wait, 5)
    assert threads[0] != threading.get_ident()
    stop.set()
    await aside
    assert threads[-1] == 0


async def test_it_may_end_by_itself_and_its_failure_arrives() -> None:
    async def done(_own: asyncio.Event) -> None:
        pass

    async def broken(_own: asyncio.Event) -> None:
        raise NotFound("the port is taken")

    await on_own_loop(done, asyncio.Event())
    with pytest.raises(NotFound, match="taken"):
        await on_own_loop(broken, asyncio.Event())


async def test_cancelling_stops_it_first() -> None:
    ended = threading.Event()

    async def run(own: asyncio.Event) -> None:
        await own.wait()
        ended.set()

    aside = asyncio.create_task(on_own_loop(run, asyncio.Event()))
    await asyncio.sleep(0.05)
    aside.cancel()
    with pytest.raises(asyncio.CancelledError):
        await aside
    assert ended.wait(5)


@pytest.mark.timeout(30)
async def test_cancelling_it_before_it_has_begun_leaves_no_thread_behind() -> None:
    """As when the other server of the same process can't bind its port: the thread must not wait for ever."""
    ended = threading.Event()

    async def run(own: asyncio.Event) -> None:
        await own.wait()
        ended.set()

    aside = asyncio.create_task(on_own_loop(run, asyncio.Event()))
    await asyncio.sleep(0)  # it has called for the thread, and waits
    aside.cancel()
    with pytest.raises(asyncio.CancelledError):
        await aside
    assert ended.is_set()


def test_a_function_runs_in_a_process_of_its_own() -> None:
    assert in_own_process(os.getpid) != os.getpid()


def test_what_it_raises_arrives_and_its_death_too() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        in_own_process(int, "x")
    with pytest.raises(SpexError, match="died"):
        in_own_process(os._exit, 3)
