"""Interleaved rounds: every scenario on every target, over and over, in an order that rotates."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.overhead import aborts
from bench.overhead.load import Round, Scenario, Seen
from bench.overhead.machine import busy_seconds, cpu_seconds, memory_mb
from bench.overhead.targets import Target

SCENARIOS = (
    Scenario("small", "Sequential, prompts of 1 KB"),
    Scenario("large", "Sequential, prompts of 100 KB", prompt_bytes=100 * 1024),
    Scenario("connections", "64 connections, not streaming", connections=64),
    Scenario("paced", "64 connections, 2,000 requests a second", connections=64, rate=2000, seconds=3.0),
    Scenario("streams", "32 streams x 64 events x 10 ms", connections=32, seconds=0, each=3, events=64),
    Scenario("many", "256 streams x 64 events x 10 ms", connections=256, seconds=0, each=2, events=64),
)
ABORTS = "aborts"
ROUND_TRIES = 3
"""A round in which other programs were busy is measured again, so often at most."""
_DRAIN_S = 60.0
_WARM_S = 0.5

Cell = dict[str, Any]
Say = Callable[[str], None]


def progress(line: str) -> None:
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def numbers(seen: Seen, cpu_s: float) -> Cell:
    """One round in numbers: milliseconds, microseconds, requests."""
    answered = len(seen.latency)
    cell: Cell = {
        "answered": answered,
        "errors": len(seen.errors),
        "error": seen.errors[0] if seen.errors else "",
        "seconds": seen.seconds,
        "per_second": answered / seen.seconds if seen.seconds else 0.0,
        "cpu_s": cpu_s,
        "core": cpu_s / seen.seconds if seen.seconds else 0.0,
        "cpu_s_per_1000": 1000 * cpu_s / answered if answered else float("nan"),
        "per_core_second": answered / cpu_s if cpu_s > 0 else float("nan"),
    }
    for name, values in (("latency", seen.latency), ("first_event", seen.first_event), ("delay", seen.delay)):
        if values:
            p50, p99 = np.percentile(values, (50, 99)) / 1e6
            cell |= {f"{name}_p50": float(p50), f"{name}_p99": float(p99)}
    if seen.delay:
        cell |= {"events_per_second": len(seen.delay) / seen.seconds, "cpu_us_per_event": 1e6 * cpu_s / len(seen.delay)}
    return cell


async def one(scenario: Scenario, target: Target, upstream: Target) -> Cell:
    """One round on one target; what ours has still to store is waited for, and its CPU time counted."""
    pids, others = target.pids(), upstream.pids() if upstream is not target else []
    running = Round(scenario, target.port, target.model)
    try:
        await running.open()
        before = await _stored(target) if target.is_ours else {}
        cpu, upstream_cpu, busy = cpu_seconds(pids), cpu_seconds(others), busy_seconds()
        own, begun = time.process_time(), time.monotonic()
        await running.run()
        memory = memory_mb(pids)
        after = await _stored(target) if target.is_ours else {}
        cpu, upstream_cpu = cpu_seconds(pids) - cpu, cpu_seconds(others) - upstream_cpu
        wall = time.monotonic() - begun
        known = cpu + upstream_cpu + time.process_time() - own
        noise = (busy_seconds() - busy - known) / wall
    finally:
        running.close()
    counted = {name: after[name] - before[name] for name in after if name != "waiting"}
    return numbers(running.seen, cpu) | {"memory_mb": memory, "noise": noise} | counted


async def _stored(target: Target) -> dict[str, float]:
    deadline = time.monotonic() + _DRAIN_S
    while True:
        counts = await asyncio.to_thread(target.counts)
        if not counts["waiting"] or time.monotonic() > deadline:
            return counts
        await asyncio.sleep(0.2)


async def measure(
    scenarios: Sequence[Scenario], targets: Sequence[Target], upstream: Target, rounds: int, most_noise: float, say: Say
) -> dict[str, list[dict[str, Cell]]]:
    """Scenario -> rounds -> target -> its numbers."""
    found: dict[str, list[dict[str, Cell]]] = {}
    for scenario in scenarios:
        short = replace(scenario, seconds=min(scenario.seconds, _WARM_S), each=min(scenario.each, 1))
        for target in targets:  # thrown away: pools and allocators take what they need
            say(f"{scenario.name}: warming {target.name}")
            await one(short, target, upstream)
        found[scenario.name] = []
        for number in range(rounds):
            turn = number % len(targets)
            cells: dict[str, Cell] = {}
            for target in (*targets[turn:], *targets[:turn]):
                for attempt in range(ROUND_TRIES):
                    say(f"{scenario.name}: round {number + 1} of {rounds}, {target.name}" + ", again" * attempt)
                    cells[target.name] = await one(scenario, target, upstream)
                    if cells[target.name]["noise"] <= most_noise:
                        break
            found[scenario.name].append(cells)
    return found


async def measure_aborts(targets: Sequence[Target], upstream: Target, tries: int, say: Say) -> dict[str, Cell]:
    """Target -> seconds per phase, and whether bodies pass as they are."""
    found: dict[str, Cell] = {}
    for target in targets:
        say(f"aborts: {target.name}")
        try:
            seconds = await aborts.measure(target, upstream, tries)
            found[target.name] = {"seconds": seconds, "same_bytes": await aborts.passes_bytes(target, upstream)}
        except (OSError, RuntimeError, TimeoutError, asyncio.IncompleteReadError) as trouble:
            found[target.name] = {"failed": f"{type(trouble).__name__}: {trouble}"}
    return found
