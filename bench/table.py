"""The benchmark's tables and verdicts, from cells alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Cells = Sequence[dict[str, Any]]
"""Fits: game, method, masks, seed, r2, fit_seconds, and what else is known. A cell without `r2` failed."""

PEER = "shapiq ProxySPEX"
"""Its defaults: what `left` compares with."""
SHORT = {
    PEER: "peer",
    "shapiq ProxySPEX, one fit": "one fit",
    "shapiq RegressionFBII order 1": "order 1",
    "shapiq RegressionFBII order 2": "order 2",
}
LIVE_FIGURES = {
    "r2": "R2 on fresh uniform masks",
    "left": f"(1 - R2) over that of {PEER}",
    "recovered": "Share of the k true interactions that are among the k strongest found",
    "shapley_error": "Shapley values: squared error over squared truth",
    "fit_seconds": "Seconds of a fit",
}
"""A live cell's figures."""
WORST_RATIO, MEAN_RATIO, GOAL_RATIO = 1.05, 0.55, 0.40
"""What the stack must reach against the peer, per cell and on geometric mean, and its goal."""


@dataclass(frozen=True, slots=True)
class Middle:
    """Medians over the seeds of one game, method and number of masks."""

    cells: Cells

    def of(self, name: str) -> float:
        """NaN where no seed has the figure."""
        found = [cell[name] for cell in self.cells if cell.get(name) is not None]
        return float(np.median(found)) if found else float("nan")

    def show(self, name: str, digits: int) -> str:
        found = self.of(name)
        return "–" if np.isnan(found) else "< -1" if found < -1.0 else f"{found:.{digits}f}"

    def failures(self) -> list[str]:
        return [cell["failed"] for cell in self.cells if "failed" in cell]


def medians(cells: Cells) -> dict[tuple[str, int, str], Middle]:
    """By game, masks, method; in order of appearance."""
    keys = dict.fromkeys((cell["game"], cell["masks"], cell["method"]) for cell in cells)
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {name: [] for name in keys}
    for cell in cells:
        groups[cell["game"], cell["masks"], cell["method"]].append(cell)
    return {name: Middle(group) for name, group in groups.items()}


def left(ours: float, peer: float) -> float:
    """(1 - R2) over the peer's; NaN where either is unknown."""
    return max(1.0 - ours, 1e-12) / max(1.0 - peer, 1e-12)


def geometric(ratios: Iterable[float]) -> float:
    known = [ratio for ratio in ratios if not np.isnan(ratio)]
    return float(np.exp(np.mean(np.log(known)))) if known else float("nan")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Padded, so that it reads in a terminal and in a page."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def recorded(ours: Cells, peers: Cells, methods: Sequence[str]) -> str:
    """One line for each recorded game and number of masks."""
    mine, theirs = medians(ours), medians(peers)
    columns = [method for method in SHORT if any(key[2] == method for key in theirs)]
    first = methods[0]
    head = ["game, masks", *(SHORT[name] for name in columns), *methods]
    head += ["left", "peer, 2N"] * bool(columns) + ["claimed", "inside", *(f"{method}, s" for method in methods)]
    rows = []
    for game, masks in sorted({(cell["game"], cell["masks"]) for cell in ours}):
        row = [f"{game}, {masks}"]
        row += [theirs.get((game, masks, name), Middle([])).show("r2", 3) for name in columns]
        row += [mine[game, masks, method].show("r2", 3) for method in methods]
        if columns:
            ratio = left(mine[game, masks, first].of("r2"), theirs.get((game, masks, PEER), Middle([])).of("r2"))
            twice = theirs.get((game, 2 * masks, PEER), Middle([])).show("r2", 3)
            row += ["–" if np.isnan(ratio) else f"{ratio:.2f}", twice]
        some = mine[game, masks, first]
        inside = sum(cell["low"] <= cell["r2"] <= cell["high"] for cell in some.cells)
        row += [some.show("claimed", 3), f"{inside}/{len(some.cells)}"]
        rows.append(row + [mine[game, masks, method].show("fit_seconds", 1) for method in methods])
    return markdown(head, rows)


def live(cells: Cells) -> str:
    """A table for each figure: a line for each live game and number of masks, a column for each method that has it.

    Medians over the seeds that every method has there: a seed makes another game.
    """
    found = medians(in_common(cells))
    methods, parts = list(dict.fromkeys(key[2] for key in found)), []
    for name, title in LIVE_FIGURES.items():
        lines = {
            (game, masks): [live_figure(found, (game, masks, method), name) for method in methods]
            for game, masks in sorted({key[:2] for key in found})
        }
        used = [at for at in range(len(methods)) if not all(np.isnan(figures[at]) for figures in lines.values())]
        rows = [
            [f"{game}, {masks}", *(small(figures[at]) for at in used)]
            for (game, masks), figures in lines.items()
            if not np.isnan(figures).all()
        ]
        if rows:
            parts.append(f"{title}\n\n{markdown(['game, masks', *(methods[at] for at in used)], rows)}")
    failed = [
        f"{key[2]} failed {len(some.failures())} of {len(some.cells)} times at {key[0]}, {key[1]}: {some.failures()[0]}"
        for key, some in found.items()
        if some.failures()
    ]
    return "\n\n".join([*parts, *failed])


def in_common(cells: Cells) -> Cells:
    """Without the seeds of a game and number of masks that some method there lacks."""
    seeds: dict[tuple[str, int], dict[str, set[int]]] = {}
    for cell in cells:
        seeds.setdefault((cell["game"], cell["masks"]), {}).setdefault(cell["method"], set()).add(cell["seed"])
    shared = {where: set.intersection(*methods.values()) for where, methods in seeds.items()}
    return [cell for cell in cells if cell["seed"] in shared[cell["game"], cell["masks"]]]


def live_figure(found: dict[tuple[str, int, str], Middle], key: tuple[str, int, str], name: str) -> float:
    """NaN where it is unknown. Nothing is compared with a peer that left nothing to explain."""
    some, peer = found.get(key, Middle([])), found.get((*key[:2], PEER), Middle([])).of("r2")
    if name == "left":
        return float("nan") if peer > 1.0 - 1e-9 else left(some.of("r2"), peer)
    return some.of(name)


def small(figure: float) -> str:
    """Two digits that count; R2 of almost 1 stays apart from 1 in `left`, not here."""
    if np.isnan(figure):
        return "–"
    return "0" if abs(figure) < 1e-12 else f"{figure:.3f}" if 0.01 <= abs(figure) < 100 else f"{figure:.1e}"


def verdicts(ours: Cells, peers: Cells, methods: Sequence[str]) -> list[str]:
    """Each line of what must be reached on recorded games, and by how much it is met or missed."""
    lines = []
    for method in methods:
        over = [1.0 - cell["r2"] for cell in ours if cell["method"] == method]
        lines.append(f"{method}: geometric mean of 1 - R2 over all {len(over)} fits: {geometric(over):.4f}")
    mine, theirs = medians(ours), medians(peers)
    asked = dict.fromkeys((cell["game"], cell["masks"]) for cell in ours)
    cells = [cell for cell in asked if (*cell, PEER) in theirs]
    if not cells:
        return [*lines, "no peer is recorded for these games: python -m bench.faithfulness --peers PYTHON"]

    def figure(method: str, masks: Callable[[int], int] = lambda masks: masks) -> list[float]:
        source = theirs if method in SHORT else mine
        return [source.get((game, masks(count), method), Middle([])).of("r2") for game, count in cells]

    peer = figure(PEER)
    for method in methods:
        ratios = {cell: left(r2, other) for cell, r2, other in zip(cells, figure(method), peer, strict=True)}
        worst = max(ratios, key=lambda cell: -1.0 if np.isnan(ratios[cell]) else ratios[cell])
        lines.append(
            f"{method}: (1 - R2) over the peer's, {len(cells)} cells: geometric mean {geometric(ratios.values()):.3f}, "
            f"worst {ratios[worst]:.2f} ({worst[0]}, {worst[1]}); mean R2 {np.nanmean(figure(method)):.4f}, "
            f"the peer's {np.nanmean(peer):.4f}"
        )
    if "stack" in methods:
        ratio = geometric(left(r2, other) for r2, other in zip(figure("stack"), peer, strict=True))
        worst_ratio = np.nanmax([left(r2, other) for r2, other in zip(figure("stack"), peer, strict=True)])
        lines.append(told("stack, geometric mean", ratio, MEAN_RATIO) + f" (the goal is {GOAL_RATIO:.2f})")
        lines.append(told("stack, worst cell", float(worst_ratio), WORST_RATIO))
        twice = [(r2, other) for r2, other in zip(figure("stack"), figure(PEER, lambda n: 2 * n), strict=True)]
        known = [r2 >= other for r2, other in twice if not np.isnan(other)]
        met = "met" if sum(known) * 2 >= len(known) else "missed"
        lines.append(f"stack with N masks reaches the peer's R2 with 2N in {sum(known)} of {len(known)} cells: {met}")
    return lines


def told(what: str, figure: float, most: float) -> str:
    verdict = "met" if figure <= most else f"missed by {figure - most:.3f}"
    return f"{what}: {figure:.3f}, at most {most:.2f} is asked: {verdict}"
