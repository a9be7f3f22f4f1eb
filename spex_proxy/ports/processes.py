"""Run a few processes of ours together, for `spex-proxy up`.

The worker may die and is started again; production must never notice. When the
relay ends, everything ends, with its exit code.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RESTART_PAUSE_S = (1.0, 2.0, 5.0, 15.0)
"""Pause before the first, second, ... restart of a process that keeps dying; the last repeats."""
GRACE_S = 20.0
"""How long a process may take to stop by itself before it is killed."""


@dataclass(frozen=True, slots=True)
class Program:
    """One process to run."""

    name: str
    command: Sequence[str]
    is_vital: bool
    """True: when it ends, all end. False: it is started again."""


async def run_together(programs: Sequence[Program], environment: Mapping[str, str], stop: asyncio.Event) -> int:
    """Run until `stop` is set or a vital program ends; returns the exit code to pass on."""
    tasks = [asyncio.create_task(_keep(program, environment, stop)) for program in programs]
    codes = await asyncio.gather(*tasks)
    return max(codes)


async def _keep(program: Program, environment: Mapping[str, str], stop: asyncio.Event) -> int:
    restarts = 0
    while not stop.is_set():
        process = await asyncio.create_subprocess_exec(*program.command, env=dict(environment))
        code = await _until_stopped(process, stop)
        if stop.is_set() and code is None:
            return 0
        if program.is_vital:
            stop.set()
            return code or 0
        pause = RESTART_PAUSE_S[min(restarts, len(RESTART_PAUSE_S) - 1)]
        print(f"spex-proxy: {program.name} ended with code {code}; starting it again in {pause:g} s", flush=True)
        restarts += 1
        try:
            await asyncio.wait_for(stop.wait(), pause)
        except TimeoutError:
            continue
    return 0


async def _until_stopped(process: asyncio.subprocess.Process, stop: asyncio.Event) -> int | None:
    """The exit code of a process that ended by itself; None if it ended because we stopped it."""
    ended = asyncio.create_task(process.wait())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if ended.done():
        return ended.result()
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(asyncio.shield(ended), GRACE_S)
    except TimeoutError:
        process.kill()
        await ended
    return None
