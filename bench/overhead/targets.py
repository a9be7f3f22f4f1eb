"""Who is measured: the upstream itself, our relay, and the peers that this machine has.

Every target is a server on loopback, started on one core, that passes requests on to the scripted upstream.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.overhead.machine import Cores, family
from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade

DIRECT = "direct"
RATES = {"off": 0.0, "1%": 0.01, "100%": 1.0}
"""Share of requests that our relay captures; every captured one is stored in SQLite."""
SERVERS = ("nginx", "haproxy")

NGINX = """
worker_processes 1; pid {folder}/nginx.pid; daemon off; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 1m; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""
# `abortonclose`, since without it the upstream never learns that a client has left before the first byte.
HAPROXY = """
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  option http-keep-alive
  option abortonclose
  http-reuse always
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  server model 127.0.0.1:{upstream}
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and how to look into it."""

    name: str
    port: int
    pid: int
    about: str = ""
    admin: int | None = None
    """Our second port, which tells our counts."""
    model: str = "scripted"

    def pids(self) -> list[int]:
        return family(self.pid)

    @property
    def is_ours(self) -> bool:
        return self.admin is not None

    def counts(self) -> dict[str, float]:
        """How many exchanges ours has watched, stored, dropped, and still has to store."""
        found = json.loads(get(self.admin or 0, "/readyz"))["counts"]
        names = {"watched": "watched_requests", "stored": "stored_exchanges", "waiting": "intake_queue_items"}
        dropped = found["dropped_exchanges"]
        return {short: float(found[name]) for short, name in names.items()} | {"dropped": sum(dropped.values())}


@dataclass(frozen=True, slots=True)
class Peer:
    """A relay that somebody else has installed: a command with {upstream} and {port} in it."""

    name: str
    command: str
    model: str = "scripted"


def peer(text: str) -> Peer:
    """NAME=COMMAND or NAME:MODEL=COMMAND. Raises ValueError."""
    name, found, command = text.partition("=")
    name, _, model = name.partition(":")
    if not found or not name.strip() or "{port}" not in command or "{upstream}" not in command:
        raise ValueError(f"{text!r} is not NAME=COMMAND with {{upstream}} and {{port}}, the two ports, in COMMAND")
    return Peer(name.strip(), command, model or "scripted")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return bytes(answer.read())


@contextmanager
def started(command: Sequence[str], on: frozenset[int], log: Path, **environment: str) -> Iterator[int]:
    """A process and its children on these cores; ended, and waited for, at the end."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=os.environ | environment,
            preexec_fn=lambda: os.sched_setaffinity(0, on),  # noqa: PLW1509 - no thread of ours runs yet
        )  # fmt: skip
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_up(port: int, pid: int, within_s: float = 120) -> None:
    """Raises RuntimeError if nobody listens there in time, or the process has ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            pass
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"no server came up on port {port}")


@contextmanager
def everybody(
    names: Sequence[str], peers: Sequence[Peer], where: Cores, folder: Path
) -> Iterator[tuple[Target, list[Target], list[str]]]:
    """The upstream, all targets (itself the first), and a line for each that is absent."""
    absent: list[str] = []
    with ExitStack() as stack:
        port = free_port()
        command = [sys.executable, "-m", "bench.overhead.upstream", "--port", str(port)]
        pid = stack.enter_context(started(command, where.rest, folder / "upstream.log"))
        wait_until_up(port, pid)
        upstream = Target(DIRECT, port, pid)
        found = [upstream]
        for name in names:
            try:
                found.append(stack.enter_context(_one(name, peers, upstream, where, folder)))
            except (RuntimeError, OSError) as trouble:
                absent.append(f"{name}: not run, {trouble}")
        yield upstream, found, absent


@contextmanager
def _one(name: str, peers: Sequence[Peer], upstream: Target, where: Cores, folder: Path) -> Iterator[Target]:
    port = free_port()
    if name in RATES:
        with _ours(name, port, upstream, where, folder) as target:
            yield target
        return
    known = next((peer for peer in peers if peer.name == name), None)
    command, about = _server(name, port, upstream.port, folder) if known is None else (None, "")
    if known is not None:
        command = ["/bin/sh", "-c", "exec " + known.command.format(upstream=upstream.port, port=port)]
        about = known.command
    assert command is not None
    with started(command, where.target, folder / f"{name}.log") as pid:
        wait_until_up(port, pid)
        yield Target(name, port, pid, about, model=known.model if known else "scripted")


def _server(name: str, port: int, upstream: int, folder: Path) -> tuple[list[str], str]:
    """How nginx or haproxy is started, and its version. Raises RuntimeError if it is not installed."""
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RuntimeError(f"it is not installed (Debian: {'nginx-light' if name == 'nginx' else name})")
    config = folder / f"{name}.conf"
    config.write_text((NGINX if name == "nginx" else HAPROXY).format(port=port, upstream=upstream, folder=folder))
    flag, ask = ("-c", "-v") if name == "nginx" else ("-f", "-v")
    said = subprocess.run([program, ask], capture_output=True, text=True, check=True)
    version = (said.stdout + said.stderr).splitlines()[0]
    return [program, flag, str(config)], version


@contextmanager
def _ours(name: str, port: int, upstream: Target, where: Cores, folder: Path) -> Iterator[Target]:
    """`spex-proxy serve` with a store of its own, which nothing is explained from."""
    own = folder / f"ours-{RATES[name]:g}"
    own.mkdir()
    url = f"sqlite:///{own / 'store.db'}"
    upgrade(open_store(url))
    admin = free_port()
    settings: dict[str, Any] = {
        "UPSTREAM": f"http://127.0.0.1:{upstream.port}", "STORE": url, "PORT": port, "ADMIN_PORT": admin,
        "CAPTURE_RATE": RATES[name], "EXPLAIN_RATE": 0, "LOG_LEVEL": "WARNING",
    }  # fmt: skip
    environment = {f"SPEX_{key}": str(value) for key, value in settings.items()}
    command = [sys.executable, "-m", "spex_proxy", "serve"]
    with started(command, where.target, folder / f"ours-{RATES[name]:g}.log", **environment) as pid:
        wait_until_up(port, pid)
        wait_until_up(admin, pid)
        yield Target(name, port, pid, f"capture {name}", admin)
