"""What was asked of the relay, and whether a record says that it is reached. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.overhead.table import Of, Record, added, against, plain, short, spread, times_direct

PEER = "nginx"


@dataclass(frozen=True, slots=True)
class Asked:
    """One line of what the relay must reach."""

    words: str
    scenario: str
    target: str
    of: Of
    limit: float
    at_most: bool = True
    beside: tuple[str, ...] = ()
    """Whose cells it needs, besides direct's."""


def _lines() -> tuple[Asked, ...]:
    lines = []
    for scenario, size in (("small", "1 KB"), ("large", "100 KB")):
        for percent, limit in (("p50", 2.0), ("p99", 3.0)):
            of = against(PEER, added(f"latency_{percent}"))
            words = f"sequential {size}: added {percent} over nginx's, capture 1%"
            lines.append(Asked(words, scenario, "1%", of, limit, beside=(PEER,)))
    rate, event = against(PEER, plain("per_core_second")), against(PEER, plain("cpu_us_per_event"))
    return (
        *lines,
        Asked("64 connections: requests per core-second over nginx's, capture off", "connections", "off", rate, 0.4,
              at_most=False, beside=(PEER,)),
        Asked("64 connections: requests per core-second over nginx's, capture 1%", "connections", "1%", rate, 0.3,
              at_most=False, beside=(PEER,)),
        Asked("64 connections at 2,000/s: requests per core-second, capture 100%", "paced", "100%",
              plain("per_core_second"), 2000, at_most=False),
        Asked("64 connections at 2,000/s: captures that were not stored, capture 100%", "paced", "100%",
              lambda cells, target: cells[target]["watched"] - cells[target]["stored"], 0),
        Asked("32 streams: added time to first event p50, ms, capture 1%", "streams", "1%",
              added("first_event_p50"), 1.0),
        Asked("32 streams: event delay p99, ms, capture 1%", "streams", "1%", plain("delay_p99"), 2.0),
        Asked("32 streams: CPU per event over nginx's, capture 1%", "streams", "1%", event, 2.0, beside=(PEER,)),
        Asked("32 streams: CPU per event over nginx's, capture 100%", "streams", "100%", event, 4.0, beside=(PEER,)),
        Asked("256 streams: events per second over direct's, capture 1%", "many", "1%",
              times_direct("events_per_second"), 0.97, at_most=False),
    )  # fmt: skip


ASKED = _lines()
ABORT_S = 0.05


def verdicts(record: Record) -> str:
    """Markdown: asked, measured, met or by how much it is missed. Lines whose scenario is missing are left out."""
    lines = ["| asked | limit | measured | |", "|---|---:|---:|---|"]
    for asked in ASKED:
        found = spread(
            record["scenarios"].get(asked.scenario, []), asked.target, asked.of, record["most_noise"], *asked.beside
        )
        if not math.isnan(found.median):
            sign = "at most" if asked.at_most else "at least"
            told = told_of(found.median, asked.limit, asked.at_most) if found.is_quiet else "not known: no quiet round"
            lines.append(f"| {asked.words} | {sign} {asked.limit:,g} | {found} | {told} |")
    for target in ("off", "1%", "100%"):
        if target in record["aborts"] and "seconds" in (cell := record["aborts"][target]):
            tries = [value for each in cell["seconds"].values() for value in each]
            worst = math.inf if None in tries else max(tries)
            told = told_of(1000 * worst, 1000 * ABORT_S, at_most=True)
            words = f"an abort reaches the upstream, slowest of {len(tries)} in four phases, ms, capture {target}"
            lines.append(f"| {words} | at most 50 | {short(1000 * worst)} | {told} |")
            arrives = "met" if cell["same_bytes"] else "missed"
            lines.append(f"| a body arrives with the same bytes, capture {target} | yes | | {arrives} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def told_of(value: float, limit: float, at_most: bool) -> str:
    is_met = value <= limit if at_most else value >= limit
    return "met" if is_met else f"missed by {short(abs(value - limit))}"
