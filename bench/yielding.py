"""How soon explaining makes room: when, after a request of production, masked queries are begun and closed no more.

    python -m bench.yielding [--arrivals 300] [--json FILE]
    python -m bench.yielding --show FILE

Relay and worker are `spex-proxy serve` and `spex-proxy work`, processes of their own; the model server is the scripted
engine of bench.interference, which stamps with the monotonic clock when a masked query is asked, answered or closed on
it. Production sends one request at random moments while the worker explains; its first token comes --hold ms later, so
that for so long nothing may be begun. Times are from just before the request is written to its socket, so the way to
the relay counts too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvloop

from bench import table
from bench.interference.__main__ import PROMPT, story
from bench.interference.engine import MODEL
from bench.interference.load import Load, request
from bench.overhead.targets import free_port, started, wait_until_up
from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade

BEGUN_MS, CLOSED_MS = 5.0, 50.0
"""What is asked for."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of production. In milliseconds after its sending."""

    running: int
    """Masked queries that the model server had then."""
    begun: float
    """The last that was begun before its first token; 0 if none was."""
    closed: float
    """The last of those that ran, or were begun, was closed or answered; 0 if there were none."""


def arrivals(sent: Sequence[float], events: Sequence[tuple[str, int, float]], hold: float) -> list[Arrival]:
    """What each request found and when it had its room. `events`: (what, number of the query, monotonic seconds);
    `hold`: seconds until a first token. Pure."""
    began = {number: at for what, number, at in events if what == "asked"}
    ended = {number: at for what, number, at in events if what != "asked"}
    found = []
    for moment in sent:
        running = [number for number, at in began.items() if at <= moment < ended.get(number, float("inf"))]
        late = [number for number, at in began.items() if moment < at <= moment + hold]
        ends = [ended.get(number, float("inf")) - moment for number in (*running, *late)]
        begun = max((began[number] - moment for number in late), default=0.0)
        found.append(Arrival(len(running), 1000 * begun, 1000 * max(ends, default=0.0)))
    return found


def report(found: Sequence[Arrival]) -> str:
    busy = [one for one in found if one.running]
    rows = [
        _row("last masked query begun, all arrivals", [one.begun for one in found], BEGUN_MS),
        _row("last masked query begun, where any was", [one.begun for one in found if one.begun], BEGUN_MS),
        _row("all closed, where any ran", [one.closed for one in busy], CLOSED_MS),
        _row("all closed, all arrivals", [one.closed for one in found], CLOSED_MS),
    ]
    head = ["ms after production's request", "arrivals", "p50", "p95", "p99", "most", "within what is asked"]
    return "\n".join([
        table.markdown(head, rows), "",
        f"{len(found)} arrivals; masked queries ran at {len(busy)} of them.",
    ])  # fmt: skip


def _row(what: str, values: Sequence[float], limit: float) -> list[str]:
    if not values:
        return [what, "0", *["–"] * 5]
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    within = sum(value <= limit for value in values) / len(values)
    figures = [f"{value:.1f}" for value in (p50, p95, p99, max(values))]
    return [what, f"{len(values)}", *figures, f"{within:.1%} (at most {limit:g} ms)"]


@contextmanager
def house(upstream: str, folder: Path, exchanges: int) -> Iterator[int]:
    """The relay, the worker, and work for it; the relay's port."""
    store = f"sqlite:///{folder / 'spex.db'}"
    upgrade(open_store(store))
    port, admin = free_port(), free_port()
    told: dict[str, Any] = {
        "UPSTREAM": upstream, "STORE": store, "PORT": port, "ADMIN_PORT": admin, "BOARD": folder / "board",
        "CAPTURE_RATE": 0, "EXPLAIN_RATE": 0, "LOG_LEVEL": "WARNING", "BUDGET": 40, "SEGMENTER": "sentence",
        "TARGET_R2": 1,
    }  # fmt: skip
    environment = {f"SPEX_{name}": str(value) for name, value in told.items()}
    cores = frozenset(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "spex_proxy"]
    with started([*command, "serve"], cores, folder / "relay.log", **environment) as pid:
        wait_until_up(port, pid)
        wait_until_up(admin, pid)
        with httpx.Client(trust_env=False, timeout=120) as client:
            for number in range(exchanges):
                body = request(port, MODEL, story(number, 20), 8, stream=False).partition(b"\r\n\r\n")[2]
                headers = {"content-type": "application/json", "x-spex-explain": "yes"}
                url = f"http://127.0.0.1:{port}/v1/chat/completions"
                client.post(url, content=body, headers=headers).raise_for_status()
        with started([*command, "work"], cores, folder / "worker.log", **environment):
            yield port


async def produce(port: int, upstream: str, options: argparse.Namespace) -> tuple[list[float], list[Any]]:
    """Requests at random moments, once the worker asks; when each was sent, and what the server stamped."""
    load = Load(port, MODEL, PROMPT, 2)
    async with httpx.AsyncClient(base_url=upstream, trust_env=False) as client:

        async def stamps() -> list[Any]:
            found: list[Any] = (await client.get("/stamps")).json()
            return found

        deadline = time.monotonic() + 120
        while sum(what == "answered" for what, *_ in await stamps()) < 20:
            if time.monotonic() > deadline:
                raise SystemExit("the worker asks nothing; see its log")
            await asyncio.sleep(0.2)
        draw = np.random.Generator(np.random.PCG64(5))
        sent = []
        for _ in range(options.arrivals):
            await asyncio.sleep(0.05 + float(draw.exponential(options.pause)))
            sent.append(time.monotonic())
            await load.one()
            await load.drained()
            if load.seen.errors:
                raise SystemExit(f"production failed: {load.seen.errors[0]}")
        load.close()
        return sent, await stamps()


def measured(options: argparse.Namespace) -> list[Arrival]:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        engine = [sys.executable, "-m", "bench.interference.engine", "--port", str(port), "--hold", str(options.hold)]
        with started(engine, frozenset(os.sched_getaffinity(0)), folder / "engine.log") as pid:
            wait_until_up(port, pid)
            upstream = f"http://127.0.0.1:{port}"
            try:
                with house(upstream, folder, options.exchanges) as relay:
                    sent, events = uvloop.run(produce(relay, upstream, options))
            except BaseException:
                for log in folder.glob("*.log"):
                    print(f"--- {log.name} ---\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
                raise
    return arrivals(sent, events, options.hold / 1000)


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.yielding", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arrivals", type=int, default=300, help="requests of production")
    parser.add_argument("--pause", type=float, default=0.15, help="mean seconds between two, beside 50 ms")
    parser.add_argument("--hold", type=float, default=100.0, help="ms until a first token of production's")
    parser.add_argument("--exchanges", type=int, default=150, help="to explain, 34 masks each")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    parser.add_argument("--show", type=Path, help="print what is kept there, measure nothing")
    options = parser.parse_args(given)
    if options.show:
        found = [Arrival(**one) for one in json.loads(options.show.read_text())]
    else:
        found = measured(options)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found]) + "\n")
    print(report(found))
    print(f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, python -m bench.yielding {' '.join(given)}".rstrip())


if __name__ == "__main__":
    main(sys.argv[1:])
