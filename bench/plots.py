"""The benchmark's plots, written as SVG: no plotting library is needed, and a diff shows what changed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from bench.table import PEER, Cells, left, medians

INK = {"peer": "#9a6b00", "proxyspex": "#3a7ca5", "stack": "#b3261e"}
STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#333}.small{font-size:11px;fill:#666}.grid{stroke:#ccc}"
    "svg{background:#fff}@media(prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#aaa}.grid{stroke:#555}"
    "svg{background:#16181c}}</style>"
)
GRID = 'class="grid"'
ROW, LEFT, WIDTH, TOP = 20, 150, 520, 58


def write(folder: Path, ours: Cells, stored: Cells) -> list[Path]:
    """faithfulness.svg (R2 in each cell), unexplained.svg (what is left over against the peer, by masks per player)."""
    digests = {cell["game"]: cell["digest"] for cell in ours}
    peers = [cell for cell in stored if cell.get("digest") and cell["digest"] == digests.get(cell["game"])]
    folder.mkdir(parents=True, exist_ok=True)
    made = {"faithfulness.svg": by_cell(ours, peers), "unexplained.svg": by_budget(ours, peers)}
    for name, text in made.items():
        (folder / name).write_text(text)
    return [folder / name for name in made]


def frame(width: float, height: float, title: str, body: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", STYLE, *body, "</svg>", ""])


def text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, more: str = GRID) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {more}/>'


def mark(x: float, y: float, colour: str, words: str, hollow: bool = False) -> str:
    fill = f'fill="none" stroke="{colour}" stroke-width="2"' if hollow else f'fill="{colour}"'
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 if hollow else 4.5}" {fill}><title>{escape(words)}</title></circle>'
    )


def legend(y: float, methods: Sequence[str]) -> list[str]:
    out, x = [], float(LEFT)
    for name in methods:
        shown = "shapiq ProxySPEX" if name == "peer" else name
        out += [mark(x, y - 4, INK[name], shown, name == "peer"), text(x + 10, y, shown)]
        x += 30 + 7.0 * len(shown)
    return out


def by_cell(ours: Cells, peers: Cells) -> str:
    """A row for each game and number of masks, R2 along it: the peer and our methods, medians over seeds."""
    mine, theirs = medians(ours), medians(peers)
    rows = sorted({(cell["game"], cell["masks"]) for cell in ours})
    methods = [name for name in INK if name != "peer" and any(key[2] == name for key in mine)]
    bottom = TOP + ROW * len(rows)

    def at(r2: float) -> float:
        return LEFT + WIDTH * float(np.clip(r2, 0.0, 1.0))

    seeds = len({cell["seed"] for cell in ours})
    head = f"R2 on masks that nobody fitted, by game and number of masks; medians over {seeds} seeds"
    body = [text(10, 18, head), *legend(40, ["peer", *methods])]
    for tick in np.linspace(0, 1, 6):
        body += [
            line(at(tick), TOP, at(tick), bottom),
            text(at(tick), bottom + 16, f"{tick:g}", 'text-anchor="middle" class="small"'),
        ]
    for number, (game, masks) in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        body.append(text(LEFT - 10, y + 4, f"{game}, {masks}", 'text-anchor="end"'))
        peer = theirs[game, masks, PEER].of("r2") if (game, masks, PEER) in theirs else float("nan")
        best = max(mine[game, masks, name].of("r2") for name in methods)
        if not np.isnan(peer):
            body += [
                line(at(peer), y, at(best), y, 'stroke="#888" stroke-width="1"'),
                mark(at(peer), y, INK["peer"], f"{peer:.3f}", True),
            ]
        body += [
            mark(at(mine[game, masks, name].of("r2")), y, INK[name], f"{mine[game, masks, name].of('r2'):.3f}")
            for name in methods
        ]
    return frame(LEFT + WIDTH + 30, bottom + 28, "R2 of our methods and of the peer", body)


def by_budget(ours: Cells, peers: Cells) -> str:
    """The stack's unexplained variance over the peer's against masks per player, a line for each game; log scale."""
    mine, theirs = medians(ours), medians(peers)
    points: dict[str, list[tuple[float, float]]] = {}
    for game, masks in dict.fromkeys((cell["game"], cell["masks"]) for cell in ours):
        players = int(game.rsplit("_n", 1)[-1]) if "_n" in game and game.rsplit("_n", 1)[-1].isdigit() else 0
        if players and (game, masks, PEER) in theirs and (game, masks, "stack") in mine:
            ratio = left(mine[game, masks, "stack"].of("r2"), theirs[game, masks, PEER].of("r2"))
            points.setdefault(game, []).append((masks / players, ratio))
    high, size = 340.0, 520.0

    def x_of(each: float) -> float:
        return 60 + size * float(np.log(each / 2) / np.log(32))

    def y_of(ratio: float) -> float:
        return 40 + high * float(-np.log(np.clip(ratio, 0.05, 1.1) / 1.1) / np.log(1.1 / 0.05))

    body: list[str] = [
        text(10, 18, "1 - R2 of stack over that of shapiq ProxySPEX on the same masks; log scale, lower is better")
    ]
    for tick in (0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0):
        body += [
            line(60, y_of(tick), 60 + size, y_of(tick), 'stroke="#888" stroke-width="1.5"' if tick == 1.0 else GRID),
            text(52, y_of(tick) + 4, f"{tick:g}", 'text-anchor="end" class="small"'),
        ]
    for each in (2, 4, 8, 16, 32, 64):
        body.append(text(x_of(each), 60 + high, f"{each}n", 'text-anchor="middle" class="small"'))
    body.append(text(60 + size / 2, 80 + high, "masks, in multiples of the players n", 'text-anchor="middle"'))
    colours: Any = ("#b3261e", "#3a7ca5", "#9a6b00", "#5b8c5a", "#7b5ea7", "#666666")
    for number, (game, found) in enumerate(points.items()):
        colour, ordered = colours[number % len(colours)], sorted(found)
        path = " ".join(f"{x_of(each):.1f},{y_of(ratio):.1f}" for each, ratio in ordered)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        body += [mark(x_of(each), y_of(ratio), colour, f"{game}: {ratio:.2f}") for each, ratio in ordered]
        body += [mark(70 + size, 50 + 20.0 * number, colour, game), text(80 + size, 54 + 20.0 * number, game)]
    return frame(size + 220, high + 94, "Unexplained variance against the peer's", body)
