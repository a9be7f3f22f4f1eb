"""Work that must not keep production's event loop or interpreter waiting: another loop, another process."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from spex_proxy.facts.errors import SpexError

Result = TypeVar("Result")

_NICE = 10
"""Production's processes get the cores first."""


async def on_own_loop(run: Callable[[asyncio.Event], Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
    """Await `run(its own stop)` on the loop of a thread of its own, until it ends, or `stop` is set and it ends."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        own = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), own))
        await run(own)

    running: asyncio.Future[Any] = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(main())))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # a thread can't be cancelled: whatever ends us, and however early, it is told, and waited for
        stopping.cancel()
        ready: asyncio.Future[Any] = asyncio.wrap_future(started)
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            loop, own = ready.result()
            try:
                loop.call_soon_threadsafe(own.set)
            except RuntimeError:
                pass  # the loop is closed: it ended by itself
        await running


def in_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """`function(*arguments)` in a process that is started for it, at a lower priority; takes a second to start.

    Function, arguments, result and exception travel as pickles between two processes of ours.
    Raises SpexError if the process dies.
    """
    # spawned, not forked: this process has threads, whose locks a fork would copy in whatever state they are
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=os.nice, initargs=(_NICE,)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise SpexError("the process that was to do this died; its log may say why") from error
