"""The record as one SVG: a row of dots for each target in each of four panels, on logarithmic scales."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from bench.overhead.table import Of, Record, Spread, added, plain, spread
from bench.plots import frame, line, mark, text

PANELS: tuple[tuple[str, str, Of], ...] = (
    ("small", "sequential, 1 KB: added p50, ms", added("latency_p50")),
    ("connections", "64 connections: requests per core-second", plain("per_core_second")),
    ("streams", "32 streams: added time to first event p50, ms", added("first_event_p50")),
    ("streams", "32 streams: CPU per event, us", plain("cpu_us_per_event")),
)
OURS, OTHERS = "#b3261e", "#3a7ca5"
ROW, LEFT, WIDTH, HEAD = 20, 110, 480, 30


def write(record: Record, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(draw(record))


def draw(record: Record) -> str:
    body, y = [text(10, 18, "The relay's cost beside peers: medians over rounds, with the extremes; log scales")], 36.0
    for scenario, title, of in PANELS:
        rounds = record["scenarios"].get(scenario, [])
        names = list(dict.fromkeys(target for cells in rounds for target in cells if target != "direct"))
        found = {name: spread(rounds, name, of, record["most_noise"]) for name in names}
        drawn = {name: each for name, each in found.items() if each.rounds and each.low > 0}
        if drawn:
            body += _panel(y, title, drawn)
            y += HEAD + ROW * len(drawn) + 34
    return frame(LEFT + WIDTH + 90, y, "What the relay costs", body)


def _panel(top: float, title: str, found: dict[str, Spread]) -> list[str]:
    low = 10 ** math.floor(math.log10(min(each.low for each in found.values())))
    high = 10 ** math.ceil(math.log10(max(each.high for each in found.values()) * 1.001))

    def at(value: float) -> float:
        return LEFT + WIDTH * math.log(value / low) / math.log(high / low)

    bottom = top + HEAD + ROW * len(found)
    body = [text(10, top + 14, title)]
    tick = low
    while tick <= high * 1.001:
        body.append(line(at(tick), top + HEAD - 6, at(tick), bottom))
        body.append(text(at(tick), bottom + 14, f"{tick:g}", 'text-anchor="middle" class="small"'))
        tick *= 10
    for number, (name, each) in enumerate(found.items()):
        y = top + HEAD + ROW * (number + 0.5)
        is_ours = name.endswith("%") or name == "off"
        colour = OURS if is_ours else OTHERS
        label = f"ours, {name}" if is_ours else name
        body.append(text(LEFT - 8, y + 4, label, 'text-anchor="end"'))
        body.append(line(at(each.low), y, at(each.high), y, f'stroke="{colour}" stroke-width="2" opacity="0.5"'))
        body.append(mark(at(each.median), y, colour, escape(str(each))))
        body.append(
            text(LEFT + WIDTH + 12, y + 4, f"{each.median:,.3g}" if each.median < 100 else f"{each.median:,.0f}")
        )
    return body
