"""`spex-proxy` as an operator runs it: processes of their own, stopped by pid, their log at hand."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

START_S = 150
"""Imports alone take seconds when the machine is busy."""
STOP_S = 60
COMMAND = [sys.executable, "-m", "spex_proxy"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Settings:
    """What the processes of one test are told, as environment variables."""

    upstream: str
    store: str
    """SQLAlchemy URL."""
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def relay_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def environment(self) -> dict[str, str]:
        ours = {"upstream": self.upstream, "store": self.store, "port": self.port, "admin_port": self.admin_port}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPEX_", "OTEL_"))}
        settings = ours | {"explain_rate": 1, "segmenter": "sentence", "budget": 80} | self.more
        return inherited | {f"SPEX_{name.upper()}": str(value) for name, value in settings.items()}


@dataclass
class Running:
    """A running command."""

    process: subprocess.Popen[bytes]
    settings: Settings
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, within_s: float = STOP_S) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(within_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = get(f"{self.settings.admin_url}/readyz").json()
        return found

    def metric(self, name: str, label: str = "") -> float:
        """A counter of ours from /metrics; 0 if it was never touched."""
        lines = get(f"{self.settings.admin_url}/metrics").text.splitlines()
        found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"spex_{name}{label}")]
        return sum(found)

    def children(self) -> dict[str, int]:
        """Last word of the command line -> pid, of its child processes."""
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], check=True, capture_output=True, text=True)
        rows = re.findall(r"^\s*(\d+)\s+(\d+)\s+(.*)$", listing.stdout, re.MULTILINE)
        return {args.split()[-1]: int(pid) for pid, parent, args in rows if int(parent) == self.process.pid}


@contextmanager
def running(
    command: str, settings: Settings, folder: Path, *, before_start: Callable[[], object] | None = None
) -> Iterator[Running]:
    """`spex-proxy COMMAND` until the block ends; its log is printed if that was by an exception."""
    log = folder / f"{command}-{free_port()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=settings.environment(), start_new_session=True,
            preexec_fn=before_start,  # noqa: PLW1509 - one system call, no lock
        )  # fmt: skip
    started = Running(process, settings, log)
    try:
        if command != "work":
            wait_until(lambda: process.poll() is not None or answers(f"{settings.admin_url}/readyz"), START_S)
            assert process.poll() is None, f"{command} ended with code {process.returncode}"
        yield started
    except BaseException:
        print(f"--- log of {command} ---\n{started.log[-6000:]}", file=sys.stderr)  # noqa: T201 - pytest shows it
        raise
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop it and whatever it started, by its own process group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what is left of the group, if anything
    except ProcessLookupError:
        pass
    process.wait(10)


def spex(*arguments: str, settings: Settings, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=timeout_s,
        env=settings.environment() | {"COLUMNS": "160"}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=10)


def answers(url: str) -> bool:
    try:
        return get(url).status_code == 200
    except httpx.HTTPError:
        return False


def wait_until(condition: Callable[[], object], within_s: float, every_s: float = 0.1) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(every_s)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
