"""Streaming requests for minutes, durable hand-off, one kill -9 in the middle: what leaks, what is lost?

    python -m bench.soak --minutes 10 --json soak.json

A scripted upstream (its own process) streams 32 chunks to each request, the relay (its own process, `spex-proxy
serve`) stands before it, this process asks at a fixed rate with prompts of 1 KB. The same rate is asked of the
upstream directly first. It must end with
- no answer lost: every one whose end a client saw is in the store, across the kill,
- flat memory: the relay's RSS grows by less than GROWTH_MB in ten minutes, by its slope after warming up,
- nothing left behind: the upstream's count of live requests returns to zero,
- counters that add up: offered + replayed = skipped + dropped + stored + known + waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade
from spex_proxy.store.tables import exchanges

CHUNKS = 32
PAUSE_S = 0.02
GROWTH_MB = 30.0
START_S = 180.0
"""For the relay to be up: imports take a minute on a machine that is busy otherwise."""
WARM_S = 20.0
"""The allocator and the pools take what they need; after that memory has to stay."""

PIECE = (
    b'data: {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": '
    b'[{"index": 0, "delta": {"content": "word "}, "logprobs": null, "finish_reason": %b}]}\n\n'
)
PROMPT = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "word " * 200}]}).encode()
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(PROMPT), PROMPT)
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# ---- the upstream


class Upstream:
    """Streams; counts the requests that it is answering."""

    live = 0

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET /live"):
                    body = b"%d" % self.live
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                    continue
                length = next(int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:"))
                await reader.readexactly(length)
                await self._answer(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        self.live += 1
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(CHUNKS):
                writer.write(_chunk(PIECE % (b'"stop"' if number == CHUNKS - 1 else b"null")))
                await writer.drain()
                await asyncio.sleep(PAUSE_S)
            writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            await writer.drain()
        finally:
            self.live -= 1


# ---- the load


@dataclass
class Load:
    """Asks at a fixed rate, on connections that are used again."""

    port: int
    asked: int = 0
    whole: list[str] = field(default_factory=list)
    broken: int = 0
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def run(self, rate: float, seconds: float) -> None:
        begun, tasks = time.monotonic(), set[asyncio.Task[None]]()
        while (now := time.monotonic() - begun) < seconds:
            while self.asked < now * rate:
                self.asked += 1
                task = asyncio.create_task(self._one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()

    async def _one(self) -> None:
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(ASK)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            body = await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), 60)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.broken += 1
            return
        if not head.startswith(b"HTTP/1.1 200") or body.count(b"data: ") != CHUNKS + 1:
            self.broken += 1
            writer.close()
            return
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        self.whole.append(lines.get(b"x-spex-request-id", b"").decode())
        self._idle.append((reader, writer))


# ---- the relay


class Relay:
    """`spex-proxy serve`, started, watched, killed."""

    def __init__(self, upstream: int, folder: Path, store: str) -> None:
        self.port, self.admin = free_port(), free_port()
        settings = {
            "UPSTREAM": f"http://127.0.0.1:{upstream}", "STORE": store, "PORT": self.port, "ADMIN_PORT": self.admin,
            "HANDOFF": "durable", "SPOOL": folder / "spool", "EXPLAIN_RATE": 0,
        }  # fmt: skip
        self._environment = os.environ | {f"SPEX_{name}": str(value) for name, value in settings.items()}
        self._log = (folder / "relay.log").open("ab")
        self.rss: list[tuple[float, float]] = []
        """(Seconds since its start, MB)."""
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spex_proxy", "serve"], env=self._environment, stdout=self._log, stderr=self._log
        )
        self._started = time.monotonic()
        self.rss = []
        try:
            wait_for(lambda: get(self.admin, "/healthz"), START_S)
        except TimeoutError:
            self.kill()
            raise

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(60)

    def look(self) -> None:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        self.rss.append((time.monotonic() - self._started, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))

    def slope(self) -> float:
        """MB per minute, by least squares over the time after warming up."""
        late = np.array([sample for sample in self.rss if sample[0] > WARM_S] or self.rss)
        return float(np.polyfit(late[:, 0], late[:, 1], 1)[0] * 60) if len(late) > 2 else 0.0

    def counts(self) -> dict[str, Any]:
        return dict(json.loads(get(self.admin, "/readyz"))["counts"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return bytes(answer.read())


def wait_for(condition: Any, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.1)


def total(counts: dict[str, Any], name: str) -> float:
    found = counts[f"{name}_exchanges"]
    return float(sum(found.values()) if isinstance(found, dict) else found)


async def soak(relay: Relay, rate: float, seconds: float) -> tuple[Load, list[float]]:
    """Load for so long, with a kill in the middle; the slopes of the memory before and after it."""
    load, slopes = Load(relay.port), []
    asking = asyncio.create_task(load.run(rate, seconds))
    begun, is_killed = time.monotonic(), False
    while not asking.done():
        await asyncio.sleep(1)
        relay.look()
        if not is_killed and time.monotonic() - begun > seconds / 2:
            is_killed = True
            slopes.append(relay.slope())
            relay.kill()
            await asyncio.to_thread(relay.start)
    slopes.append(relay.slope())
    await asking
    return load, slopes


def measure(minutes: float, rate: float, folder: Path) -> dict[str, Any]:
    """One soak; the numbers and the verdicts."""
    url = f"sqlite:///{folder / 'soak.db'}"
    store = open_store(url)
    upgrade(store)
    port = free_port()
    upstream = subprocess.Popen([sys.executable, "-m", "bench.soak", "--upstream", str(port)])
    relay = None
    try:
        wait_for(lambda: get(port, "/live"))
        direct = Load(port)
        asyncio.run(direct.run(rate, 5))
        relay = Relay(port, folder, url)
        load, slopes = asyncio.run(soak(relay, rate, minutes * 60))
        wait_for(lambda: relay.counts()["intake_queue_items"] == 0)
        wait_for(lambda: get(port, "/live") == b"0", 10)
        counts = relay.counts()
        code = relay.stop()
        live = int(get(port, "/live"))
    finally:
        if relay is not None:
            relay.kill()  # does nothing if it has stopped
        upstream.send_signal(signal.SIGTERM)
        upstream.wait(10)
    with store.connect() as connection:
        kept = set(connection.scalars(sa.select(exchanges.c.id)))
    store.dispose()
    came = total(counts, "offered") + total(counts, "replayed")
    went = sum(total(counts, name) for name in ("skipped", "dropped", "stored", "known"))
    late = counts["held_answers"].get("late", 0) + counts["held_answers"].get("unkept", 0)
    lost = len(set(load.whole) - kept)
    verdicts = {
        "direct carries the rate": direct.broken == 0,
        "nothing lost": lost == 0,
        "memory flat": max(slopes) * 10 < GROWTH_MB,
        "no live request left": live == 0,
        "counters add up": came == went,
        "stopped in good order": code == 0,
    }
    return {
        "minutes": minutes, "rate": rate, "asked": load.asked, "whole": len(load.whole), "broken": load.broken,
        "stored": len(kept), "lost": lost, "answers_not_kept_in_time": late, "replayed": total(counts, "replayed"),
        "rss_mb": [round(mb, 1) for _, mb in relay.rss[:: max(1, len(relay.rss) // 20)]],
        "rss_slope_mb_per_minute": [round(slope, 3) for slope in slopes], "counts": counts,
        "verdicts": verdicts, "passed": all(verdicts.values()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        try:
            asyncio.run(Upstream().serve(options.upstream))
        except KeyboardInterrupt:
            pass
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.minutes, options.rate, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "counts"}, indent=2))
    for name, is_good in found["verdicts"].items():
        print(f"{'ok  ' if is_good else 'FAIL'} {name}")
    sys.exit(not found["passed"])


if __name__ == "__main__":
    main()
