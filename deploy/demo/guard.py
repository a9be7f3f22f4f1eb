"""Run a server and whatever it starts, until our standard input closes; then end the whole process group.

    python3 deploy/demo/guard.py COMMAND ...

vLLM's children (EngineCore, Worker) can outlive it. So it runs under this guard, and its owner holds the other end of a
pipe: closing it, or dying in whatever way, ends the guard's group, itself included. One way out for every ending.
The owner starts it in a session of its own (`start_new_session`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

STOP_SECONDS = 15  # for a clean shutdown, before the rest is killed


def guard(command: Sequence[str]) -> None:
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while server.poll() is None and not select.select([sys.stdin], [], [], 0.5)[0]:
        pass
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(os.getpgrp(), signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    guard(sys.argv[1:])
