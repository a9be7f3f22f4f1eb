"""Run a few processes of ours together, for `spex-proxy up` and for several relays on one port.

The worker may die and is started again; production must never notice. When the
relay ends, everything ends, with its exit code. One of several relays is started
again like a worker: the others serve meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

RESTART_PAUSE_S = (1.0, 2.0, 5.0, 15.0)
"""Pause before the first, second, ... restart of a process that keeps dying; the last repeats."""
LIVED_S = 60.0
"""A process that lived so long had no trouble at its start: its restarts are counted anew."""
CANT_START = 127
"""Exit code of a program that could not even be started, as a shell gives it."""
GRACE_S = 45.0
"""How long a process may take to stop by itself before it is killed: longer than the relay gives
running answers (30 s) and the store after them (10 s)."""


@dataclass(frozen=True, slots=True)
class Program:
    """One process to run."""

    name: str
    command: Sequence[str]
    is_vital: bool
    """True: when it ends, all end. False: it is started again."""
    linked: Callable[[socket.socket], None] | None = None
    """Given our end of a socket pair at each start; the number of the other end is the command's last word."""
    restarted: Callable[[], None] = lambda: None
    """Called before each further start."""


async def run_together(programs: Sequence[Program], environment: Mapping[str, str], stop: asyncio.Event) -> int:
    """Run until `stop` is set or a vital program ends; returns the exit code to pass on."""
    tasks = [asyncio.create_task(_keep(program, environment, stop)) for program in programs]
    return max(await asyncio.gather(*tasks))


async def _keep(program: Program, environment: Mapping[str, str], stop: asyncio.Event) -> int:
    restarts = 0
    while not stop.is_set():
        started = time.monotonic()
        code = await _run(program, environment, stop)
        if program.is_vital:
            stop.set()
            return code
        if stop.is_set():
            return 0
        restarts = 0 if time.monotonic() - started > LIVED_S else restarts
        pause = RESTART_PAUSE_S[min(restarts, len(RESTART_PAUSE_S) - 1)]
        log.error("%s ended with code %d; starting it again in %g s", program.name, code, pause)
        restarts += 1
        try:
            await asyncio.wait_for(stop.wait(), pause)
        except TimeoutError:
            program.restarted()
    return 0


async def _run(program: Program, environment: Mapping[str, str], stop: asyncio.Event) -> int:
    """Run once; the exit code as a shell gives it: 128 + n after signal n, 0 if we stopped it."""
    try:
        process = await _start(program, environment)
    except OSError as error:
        log.error("%s can't be started: %s", program.name, error)
        return CANT_START
    code = await _until_stopped(process, stop)
    if code is None:
        return 0
    return code if code >= 0 else 128 - code


async def _start(program: Program, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    if program.linked is None:
        return await asyncio.create_subprocess_exec(*program.command, env=dict(environment))
    ours, theirs = socket.socketpair()
    with theirs:
        fd = theirs.fileno()
        try:
            process = await asyncio.create_subprocess_exec(
                *program.command, str(fd), env=dict(environment), pass_fds=(fd,)
            )
        except OSError:
            ours.close()
            raise
    program.linked(ours)
    return process


async def _until_stopped(process: asyncio.subprocess.Process, stop: asyncio.Event) -> int | None:
    """The exit code of a process that ended by itself; None if it ended because we stopped it."""
    ended = asyncio.create_task(process.wait())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        process.send_signal(signal.SIGTERM)  # whoever ran us failed: leave nobody behind
        raise
    finally:
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
