"""What explaining costs production on the model server that both use: windows with it and without, in turns.

    python -m bench.interference                       real vLLM on the CPU, started for it (`make vllm`)
    python -m bench.interference --upstream URL        or UPSTREAM=URL: a vLLM server that nobody else uses
    python -m bench.interference --scripted --rate 200 a scripted engine whose steps all requests share
    python -m bench.interference --json FILE --most 1  one pair of windows, and what was kept of earlier calls

Production is streams through our relay, begun at a steady rate: by default such that one is in flight half of the time;
with --burst so many at a time.
A process of its own explains: the flow, gate and scorer of a worker, at the lowest niceness. Modes: with the gate;
without it, at our low priority; without it, at production's own priority. Each window with our work stands beside one
without; windows without, one after the other, tell what chance does. Off loopback nothing is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvloop

from bench.interference.asker import MODES
from bench.interference.load import Load, Window, request
from bench.interference.report import Pair, Record, figures, read, report, write
from bench.overhead.targets import free_port, started, wait_until_up
from deploy.demo.vllm_cpu import running_vllm
from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade

WORDS = (
    "harbour", "ledger", "winter", "copper", "lantern", "quarry", "violin", "meadow", "saffron", "anchor", "glacier",
    "orchard",
)  # fmt: skip
PROMPT = "Describe the harbour of a small town in winter, its boats, its people and its weather, in plain words."
FILLER = "in the old house behind the market, opened once a month by two people who must agree".split()  # noqa: SIM905 - a sentence is read, a list of its words is not
IDLE_S = 60.0
"""Of an idle window, at most."""
SETTLE_S = 0.5
"""Between two windows."""


def story(number: int, size: int) -> str:
    """A prompt of five sentences, another one for each number: 32 masks, and a fit that takes no time. The first four
    have `size` more words each."""
    more = " ".join(FILLER[k % len(FILLER)] for k in range(size))
    lines = [
        f"Note {k} of file {number}: the {word} is kept by the {WORDS[(k * 7 + number) % 12]}{', ' * bool(more)}{more}."
        for k, word in enumerate(WORDS[:4], 1)
    ]
    return " ".join(lines) + " What is kept by whom?"


class Asker:
    """The process that explains, at the other end of a pipe."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.interference.asker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=out, env=os.environ | environment, text=True,
            )  # fmt: skip

    async def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        if not line:
            raise SystemExit("the process that explains has ended; see its log")
        found: dict[str, Any] = json.loads(line)
        return found

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def house(upstream: str, folder: Path, options: argparse.Namespace, model: str) -> Iterator[tuple[int, Asker]]:
    """A relay before the upstream, exchanges in its store, and the process that explains them."""
    store = f"sqlite:///{folder / 'spex.db'}"
    upgrade(open_store(store))
    port, admin = free_port(), free_port()
    told: dict[str, Any] = {
        "UPSTREAM": upstream, "STORE": store, "PORT": port, "ADMIN_PORT": admin, "BOARD": folder / "board",
        "CAPTURE_RATE": 0, "EXPLAIN_RATE": 0, "LOG_LEVEL": "WARNING", "SCORER": options.scorer,
        "BUDGET": options.budget, "SEGMENTER": "sentence",
    }  # fmt: skip
    environment = {f"SPEX_{name}": str(value) for name, value in told.items()}
    everywhere = frozenset(os.sched_getaffinity(0))
    with started([sys.executable, "-m", "spex_proxy", "serve"], everywhere, folder / "relay.log", **environment) as pid:
        wait_until_up(port, pid)
        wait_until_up(admin, pid)
        with httpx.Client(trust_env=False, timeout=120) as client:
            for number in range(options.exchanges):
                body = request(port, model, story(number, options.words), 8, stream=False).partition(b"\r\n\r\n")[2]
                headers = {"content-type": "application/json", "x-spex-explain": "yes"}
                url = f"http://127.0.0.1:{port}/v1/chat/completions"
                client.post(url, content=body, headers=headers).raise_for_status()
            while (
                client.get(f"http://127.0.0.1:{admin}/readyz").json()["counts"]["stored_exchanges"] < options.exchanges
            ):
                time.sleep(0.1)
        asker = Asker(environment, folder / "asker.log")
        try:
            yield port, asker
        finally:
            asker.close()


async def measure(port: int, asker: Asker, options: argparse.Namespace, model: str, known: Record | None) -> Record:
    """So many pairs of windows as --most allows, beside those that are known."""
    load = Load(port, model, " ".join([PROMPT] * options.prompt), options.tokens, options.burst)
    say(f"{(await asker.hear())['exchanges']} exchanges to explain")
    length = await warmed(load)
    record = known or Record(options.rate or options.duty * options.burst / length)
    await explaining(asker, "free", lambda: asyncio.sleep(2))  # imports, and the first fit
    for mode in ("free", "gate"):
        if mode not in record.idle:
            seconds = min(options.seconds, IDLE_S)
            done = await explaining(asker, mode, lambda: asyncio.sleep(seconds))  # noqa: B023 - awaited here
            record.idle[mode] = done["masks"] / seconds
            say(f"idle, {mode}: {record.idle[mode]:.1f} masks/s")
    for mode in record.missing(options.modes, options.pairs)[: options.most]:
        pair = await pair_of(mode, load, record.rate, asker, options)
        record.pairs.append(pair)
        say(f"{mode}: {pair.done['masks']} masks, TTFT p99 x {pair.on['first_p99'] / pair.off['first_p99']:.2f}, "
            f"gap p99 x {pair.on['gap_p99'] / pair.off['gap_p99']:.2f}")  # fmt: skip
        if options.json:
            write(record, about(options), options.json)
    load.close()
    return record


async def warmed(load: Load) -> float:
    """Seconds that a burst of streams takes on a server that does nothing else."""
    lengths: list[float] = []
    for _ in range(7):  # the first ones warm everything
        begun = time.perf_counter()
        await load.one()
        await load.drained()
        lengths.append(time.perf_counter() - begun)
    return sorted(lengths[2:])[2]


async def pair_of(mode: str, load: Load, rate: float, asker: Asker, options: argparse.Namespace) -> Pair:
    """A window without our work, and one with it."""
    off = await production(load, rate, options.seconds)
    found: list[Window] = []

    async def window() -> None:
        found.append(await production(load, rate, options.seconds))

    done = await explaining(asker, mode, window)
    return Pair(mode, told(off), told(found[0]), done, options.seconds, min(1.0, off.busy / options.seconds))


async def production(load: Load, rate: float, seconds: float) -> Window:
    await asyncio.sleep(SETTLE_S)
    window = await load.run(rate, seconds)
    if window.errors:
        raise SystemExit(f"production failed: {window.errors[0]}")
    return window


async def explaining(asker: Asker, mode: str, meanwhile: Any) -> dict[str, Any]:
    asker.say(f"on {mode}")
    await meanwhile()
    asker.say("off")
    done = await asker.hear()
    for trouble in done["trouble"]:
        say(f"{mode}: {trouble}")
    for why, often in done["waits"].items():
        say(f"{mode}: {often} x {why}")
    return done


def told(window: Window) -> dict[str, float]:
    return figures(window.first, window.gaps, len(window.whole))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def server(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    if options.scripted:
        port = free_port()
        command = [sys.executable, "-m", "bench.interference.engine", "--port", str(port)]
        everywhere = frozenset(os.sched_getaffinity(0))
        with started(command, everywhere, folder / "engine.log") as pid:
            wait_until_up(port, pid)
            yield f"http://127.0.0.1:{port}"
    elif options.upstream:
        yield options.upstream.rstrip("/")
    else:
        with running_vllm() as url:
            yield url


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.interference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upstream", default=os.environ.get("UPSTREAM"), help="a vLLM server that nobody else uses")
    parser.add_argument("--scripted", action="store_true", help="the scripted engine instead")
    parser.add_argument("--rate", type=float, help="streams a second; by default what --duty gives")
    parser.add_argument("--duty", type=float, default=0.5, help="share of the time in which one is in flight")
    parser.add_argument("--tokens", type=int, default=16, help="of each stream")
    parser.add_argument("--prompt", type=int, default=3, help="of each stream: so many times 20 words")
    parser.add_argument("--words", type=int, default=20, help="more in each sentence of what is explained")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a window")
    parser.add_argument("--pairs", type=int, default=5, help="of windows, for each mode")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--burst", type=int, default=1, help="so many streams begin together")
    parser.add_argument("--json", type=Path, help="keep the windows here, and go on from what is kept there")
    parser.add_argument("--most", type=int, help="pairs to measure in this call; the others in later ones, with --json")
    parser.add_argument("--exchanges", type=int, default=60, help="to explain, 34 masks each")
    parser.add_argument("--budget", type=int, default=40, help="masks of an explanation, at most")
    parser.add_argument("--scorer", default="auto")
    options = parser.parse_args(given)
    known = read(options.json, about(options)) if options.json else None
    if known is None or known.missing(options.modes, options.pairs):
        known = measured(options, known)
    left = known.missing(options.modes, options.pairs)
    print(report(known))
    if left:
        print(
            f"\nNot whole yet: {len(left)} pairs are missing ({', '.join(sorted(set(left)))}). The same call goes on."
        )
    print(f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, python -m bench.interference {' '.join(given)}".rstrip())


def about(options: argparse.Namespace) -> dict[str, Any]:
    """What windows must have in common to stand in one table."""
    names = ("scripted", "rate", "duty", "tokens", "prompt", "words", "seconds", "burst", "budget", "scorer")
    return {name: getattr(options, name) for name in names}


def measured(options: argparse.Namespace, known: Record | None) -> Record:
    """What is known with more pairs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server(options, folder) as url:
            listed = httpx.get(f"{url}/v1/models", trust_env=False, timeout=60).json()["data"]
            model = str(listed[0]["id"])
            try:
                with house(url, folder, options, model) as (port, asker):
                    return uvloop.run(measure(port, asker, options, model, known))
            except BaseException:
                for log in folder.glob("*.log"):
                    say(f"--- {log.name} ---\n{log.read_text(errors='replace')[-2000:]}")
                raise


if __name__ == "__main__":
    main(sys.argv[1:])
