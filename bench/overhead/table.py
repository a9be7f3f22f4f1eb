"""What the rounds say: medians of pairs, tables, and whether what was asked for is reached. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.overhead.aborts import PHASES
from bench.overhead.measure import SCENARIOS
from bench.overhead.targets import DIRECT

Cell = Mapping[str, Any]
Rounds = Sequence[Mapping[str, Cell]]
Record = Mapping[str, Any]
Of = Callable[[Mapping[str, Cell], str], float]
"""A number of one round: its cells, and the target's name."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median over rounds, with the extremes."""

    median: float
    low: float
    high: float
    rounds: int
    is_quiet: bool
    """False: every round was noisy, and all of them count."""

    def __str__(self) -> str:
        if not self.rounds:
            return "-"
        return f"{short(self.median)} ({short(self.low)}..{short(self.high)}){'' if self.is_quiet else ' noisy'}"


def short(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def plain(name: str) -> Of:
    return lambda cells, target: float(cells[target].get(name, math.nan))


def added(name: str) -> Of:
    """Over the upstream itself, in the same round."""
    return lambda cells, target: float(cells[target][name]) - float(cells[DIRECT][name])


def times_direct(name: str) -> Of:
    return lambda cells, target: float(cells[target][name]) / float(cells[DIRECT][name])


def against(peer: str, of: Of) -> Of:
    """The target's number over a peer's, in the same round."""

    def ratio(cells: Mapping[str, Cell], target: str) -> float:
        below = of(cells, peer)
        return of(cells, target) / below if below else math.nan

    return ratio


def spread(rounds: Rounds, target: str, of: Of, most_noise: float, *beside: str) -> Spread:
    """Over the rounds in which the target, and those beside it, were measured in quiet; over all, if none was."""
    names = (target, DIRECT, *beside)
    there = [cells for cells in rounds if all(name in cells for name in (target, *beside))]
    quiet = [c for c in there if all(c[name]["noise"] <= most_noise for name in names if name in c)]
    values = []
    for cells in quiet or there:
        try:
            values.append(of(cells, target))
        except KeyError:  # a number that this scenario does not have
            continue
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return Spread(math.nan, math.nan, math.nan, 0, True)
    return Spread(statistics.median(values), min(values), max(values), len(values), bool(quiet))


SEQUENTIAL: tuple[tuple[str, Of], ...] = (
    ("p50 ms", plain("latency_p50")), ("added p50 ms", added("latency_p50")),
    ("added p99 ms", added("latency_p99")), ("CPU s per 1,000", plain("cpu_s_per_1000")),
)  # fmt: skip
MANY: tuple[tuple[str, Of], ...] = (
    ("requests/s", plain("per_second")), ("of direct", times_direct("per_second")),
    ("requests per core-second", plain("per_core_second")), ("CPU s per 1,000", plain("cpu_s_per_1000")),
    ("p99 ms", plain("latency_p99")), ("memory MB", plain("memory_mb")),
    ("captured", plain("watched")), ("stored", plain("stored")), ("dropped", plain("dropped")),
)  # fmt: skip
STREAMS: tuple[tuple[str, Of], ...] = (
    ("added first event p50 ms", added("first_event_p50")), ("added first event p99 ms", added("first_event_p99")),
    ("event delay p99 ms", plain("delay_p99")), ("added event delay p99 ms", added("delay_p99")),
    ("CPU us per event", plain("cpu_us_per_event")), ("events of direct", times_direct("events_per_second")),
    ("memory MB", plain("memory_mb")),
)  # fmt: skip
COLUMNS = {"small": SEQUENTIAL, "large": SEQUENTIAL, "connections": MANY, "paced": MANY, "streams": STREAMS}
COLUMNS["many"] = STREAMS


def tables(record: Record) -> str:
    """Markdown: one table for each scenario that was measured, and one of the aborts."""
    parts = [_table(record, scenario.name, scenario.title) for scenario in SCENARIOS]
    return "\n\n".join(part for part in [*parts, _aborts(record)] if part)


def _table(record: Record, name: str, title: str) -> str:
    rounds: Rounds = record["scenarios"].get(name, [])
    if not rounds:
        return ""
    columns = COLUMNS[name]
    names = list(dict.fromkeys(target for cells in rounds for target in cells))
    lines = [f"### {title}", "", "| target | " + " | ".join(head for head, _ in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for target in names:
        cells = [str(spread(rounds, target, of, record["most_noise"])) for _, of in columns]
        lines.append(f"| {target} | " + " | ".join(cells) + " |")
    bad = {t: e for cells in rounds for t, cell in cells.items() if cell["errors"] and (e := cell["error"])}
    lines += [f"\n{target} failed at times: {error!r}" for target, error in bad.items()]
    return "\n".join(lines)


def _aborts(record: Record) -> str:
    if not record["aborts"]:
        return ""
    lines = ["### Until the upstream sees that the client has left, ms", ""]
    lines += ["| target | " + " | ".join(phase.name for phase in PHASES) + " | body arrives as sent |"]
    lines += ["|---|" + "---:|" * len(PHASES) + "---|"]
    for target, cell in record["aborts"].items():
        if "failed" in cell:
            lines.append(f"| {target} | failed: {cell['failed']} |" + " |" * len(PHASES))
            continue
        shown = [in_words(cell["seconds"][phase.name]) for phase in PHASES]
        lines.append(f"| {target} | " + " | ".join(shown) + f" | {'yes' if cell['same_bytes'] else 'no'} |")
    return "\n".join(lines)


def in_words(seconds: Sequence[float | None]) -> str:
    """The median of the tries and the longest; how many were never seen."""
    seen = [1000 * value for value in seconds if value is not None]
    never = len(seconds) - len(seen)
    if not seen:
        return "never"
    return f"{statistics.median(seen):.1f} (..{max(seen):.1f})" + (f", {never} never" if never else "")
