"""Windows -> table and verdicts, and the file that they are kept in."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench import table

FIGURES = ("first_p50", "first_p99", "gap_p50", "gap_p99")
TITLES = {"gate": "with gate", "free": "without gate", "equal": "without gate and priority"}
TELLING = 2.0
"""Where windows without our work differ by more than this, others were at work, and a ratio says nothing."""
MOST_RATIO, LEAST_SHARE, LEAST_IDLE, LEAST_REQUESTS, LEAST_PAIRS = 1.05, 0.20, 0.70, 500, 5


@dataclass(frozen=True, slots=True)
class Pair:
    """One window without our work and the one beside it with it."""

    mode: str
    off: Mapping[str, float]
    on: Mapping[str, float]
    done: Mapping[str, Any]
    """What was explained meanwhile."""
    seconds: float
    busy: float = 0.0
    """Share of the time in which a request was in flight, in the window without our work."""


@dataclass(slots=True)
class Record:
    """All that was measured."""

    rate: float
    """Streams that began a second."""
    pairs: list[Pair] = field(default_factory=list)
    idle: dict[str, float] = field(default_factory=dict)
    """Mode -> masks a second while there was no production."""

    @property
    def duty(self) -> float:
        """Share of the time in which a request was in flight, in windows without our work."""
        return float(np.mean([pair.busy for pair in self.pairs])) if self.pairs else 0.0

    def missing(self, modes: Sequence[str], pairs: int) -> list[str]:
        """Modes of the pairs that are still to be measured, in turns."""
        have = Counter(pair.mode for pair in self.pairs)
        return [mode for turn in range(pairs) for mode in modes if have[mode] <= turn]


def write(record: Record, about: Mapping[str, Any], path: Path) -> None:
    """After each pair, so that a run can be ended at any time."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"about": about, "record": asdict(record)}, indent=1) + "\n")
    partial.replace(path)


def read(path: Path, about: Mapping[str, Any]) -> Record | None:
    """What was measured before, of the same windows; None if nothing was. Raises SystemExit where others were."""
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    if found["about"] != dict(about):
        other = ", ".join(name for name, value in about.items() if found["about"].get(name) != value)
        raise SystemExit(f"{path} holds windows of another kind ({other}): name another file, or delete it")
    record = found["record"]
    return Record(**record | {"pairs": [Pair(**pair) for pair in record["pairs"]]})


def figures(first: Sequence[float], gaps: Sequence[float], requests: int) -> dict[str, float]:
    """Of one window; seconds. NaN where nothing came."""
    found = {"requests": float(requests)}
    for name, values in (("first", first), ("gap", gaps)):
        p50, p99 = np.percentile(values, (50, 99)) if len(values) else (math.nan, math.nan)
        found |= {f"{name}_p50": float(p50), f"{name}_p99": float(p99)}
    return found


def off_pairs(record: Record, name: str) -> list[float]:
    """Ratios of windows without our work that followed each other, each way round: what chance alone does."""
    off = [pair.off[name] for pair in record.pairs]
    there = [b / a for a, b in pairwise(off)]
    return [*there, *(1 / ratio for ratio in there)]


def report(record: Record) -> str:
    modes = list(dict.fromkeys(pair.mode for pair in record.pairs))
    head = ["", "TTFT p50", "TTFT p99", "gap p50", "gap p99", "masks/s", "of idle", "explained", "tokens read", "ended"]
    rows = [_row(record, mode) for mode in modes]
    noise = [_spread(off_pairs(record, name)) for name in FIGURES]
    rows.append(["off against off", *noise, *["–"] * 5])
    off = [pair.off for pair in record.pairs]
    base = ", ".join(
        f"{title} {1000 * float(np.median([one[name] for one in off])):,.1f}"
        for name, title in zip(FIGURES, ("TTFT p50", "p99", "gap p50", "p99"), strict=True)
    )
    requests = [window["requests"] for pair in record.pairs for window in (pair.off, pair.on)]
    return "\n".join([
        table.markdown(head, rows), "",
        f"Ratios on/off: median over pairs (lowest..highest). Production without us, ms: {base}; {record.rate:,.2f} "
        f"streams a second, in flight {record.duty:.0%} of the time, {min(requests):,.0f} to {max(requests):,.0f} "
        f"requests a window of {record.pairs[0].seconds:g} s. Idle: "
        + ", ".join(f"{rate:,.1f} masks/s {TITLES[mode]}" for mode, rate in record.idle.items()) + ".",
        "", *verdicts(record),
    ])  # fmt: skip


def _row(record: Record, mode: str) -> list[str]:
    pairs = [pair for pair in record.pairs if pair.mode == mode]
    rate = _rate(pairs)
    idle = record.idle.get("free", math.nan)
    done = [pair.done for pair in pairs]
    tokens = sum(one["prompt_tokens"] - one["cached_tokens"] for one in done)
    return [
        TITLES[mode], *(_spread([pair.on[name] / pair.off[name] for pair in pairs]) for name in FIGURES),
        f"{rate:,.1f}", f"{rate / idle:.0%}" if idle else "–", f"{sum(one['finished'] for one in done)}",
        f"{tokens:,}", f"{sum(one['aborted'] for one in done)}",
    ]  # fmt: skip


def _rate(pairs: Sequence[Pair]) -> float:
    return float(sum(pair.done["masks"] for pair in pairs) / sum(pair.seconds for pair in pairs))


def _spread(ratios: Sequence[float]) -> str:
    known = [ratio for ratio in ratios if not math.isnan(ratio)]
    if not known:
        return "–"
    return f"{float(np.median(known)):.2f} ({min(known):.2f}..{max(known):.2f})"


def verdicts(record: Record) -> list[str]:
    """What was asked for, and whether it is met."""
    gated = [pair for pair in record.pairs if pair.mode == "gate"]
    if not gated:
        return []
    lines = []
    for name, title in (("first_p99", "TTFT"), ("gap_p99", "gaps")):
        chance = off_pairs(record, name)
        most = max(MOST_RATIO, float(np.percentile(chance, 95))) if chance else MOST_RATIO
        ratio = float(np.median([pair.on[name] / pair.off[name] for pair in gated]))
        line = _told(f"gate on: p99 of {title}, on/off, median", ratio, "at most", most, ratio <= most)
        too_loud = (
            f"- gate on: p99 of {title}, on/off, median: {ratio:.3g}; chance alone reaches {most:.3g}: it says nothing"
        )
        lines.append(line if most <= TELLING else too_loud)
    if idle := record.idle.get("free"):
        share = _rate(gated) / idle
        lines.append(_told("masks inside production windows, of the idle rate", share, "at least", LEAST_SHARE,
                           share >= LEAST_SHARE))  # fmt: skip
        share = record.idle.get("gate", 0.0) / idle
        lines.append(_told("idle with the gate, of idle without", share, "at least", LEAST_IDLE, share >= LEAST_IDLE))
    else:
        lines.append("- the idle windows were too short for one batch: what a share of the idle rate is, is not known")
    least = min(min(pair.off["requests"], pair.on["requests"]) for pair in record.pairs)
    lines.append(_told("requests a window", least, "at least", LEAST_REQUESTS, least >= LEAST_REQUESTS))
    lines.append(_told("pairs of windows with the gate", len(gated), "at least", LEAST_PAIRS,
                       len(gated) >= LEAST_PAIRS))  # fmt: skip
    return lines


def _told(what: str, figure: float, how: str, limit: float, is_met: bool) -> str:
    return f"- {what}: {figure:,.3g}; {how} {limit:,.3g} is asked: {'met' if is_met else '**missed**'}"
