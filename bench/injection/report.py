"""The tables, from cells alone: one cell is one method on one case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.injection import cases, metrics
from bench.table import markdown

Cell = dict[str, Any]

COLUMNS = {
    "recall": "recall at true K",
    "precision_5": "precision at 5",
    "recall_5": "recall at 5",
    "hit": "hit at 1",
    "gone": "attack gone",
    "masks": "masks",
    "seconds": "s",
}
ASKED = ("3 copies", "5 copies", cases.SPLIT)
"""Where ours must be at or above every baseline in recall at true K."""

ENOUGH = 10
"""Fewer cases than this give no interval, and no verdict that counts."""


def names(cells: Sequence[Cell], column: str) -> list[str]:
    return list(dict.fromkeys(str(cell[column]) for cell in cells))


def some(cells: Sequence[Cell], **asked: str) -> list[Cell]:
    return [cell for cell in cells if all(cell[name] == value for name, value in asked.items())]


def mean(cells: Sequence[Cell], column: str) -> float:
    return float(np.mean([cell[column] for cell in cells])) if cells else float("nan")


def attacks(cells: Sequence[Cell]) -> str:
    """A table for each condition, a line for each method."""
    parts = []
    for condition in cases.CONDITIONS:
        here = some([cell for cell in cells if "recall" in cell], condition=condition)
        if not here:
            continue
        rows = []
        for method in names(here, "method"):
            mine = some(here, method=method)
            low, high = metrics.interval([cell["recall"] for cell in mine])
            figures = [f"{mean(mine, column):.2f}" for column in COLUMNS if column not in ("masks", "seconds")]
            figures[0] += f" ({low:.2f}–{high:.2f})" if len(mine) >= ENOUGH else ""
            rows.append([method, *figures, f"{mean(mine, 'masks'):.0f}", f"{mean(mine, 'seconds'):.1f}"])
        count = len(names(here, "case"))
        parts.append(f"**{condition}**, {count} cases\n\n{markdown(['method', *COLUMNS.values()], rows)}")
    return "\n\n".join(parts)


def controls(cells: Sequence[Cell]) -> str:
    """How often a method points at a segment where nothing was planted."""
    here = some(cells, condition="none")
    rows = []
    for method in names(here, "method"):
        mine = some(here, method=method)
        rows.append(
            [
                method,
                f"{mean(mine, 'flagged'):.2f}",
                f"{mean(mine, 'flagged_other'):.2f}",
                f"{mean(mine, 'largest_other'):.2f}",
            ]
        )
    head = ["method", "any document flagged", "another than the one asked about", "largest share of another"]
    return f"**no attack**, {len(names(here, 'case'))} cases\n\n{markdown(head, rows)}" if rows else ""


def verdicts(cells: Sequence[Cell], ours: str, baselines: Sequence[str]) -> list[str]:
    """Is ours at or above every baseline in recall at true K?"""
    lines = []
    for condition in ASKED:
        here = some(cells, condition=condition)
        figures = {name: mean(some(here, method=name), "recall") for name in (ours, *baselines)}
        if np.isnan(figures[ours]):
            continue
        best = max(baselines, key=lambda name: figures[name])
        met = "met" if figures[ours] >= figures[best] - 1e-9 else f"missed by {figures[best] - figures[ours]:.2f}"
        count = len(names(here, "case"))
        few = f" ({count} cases: too few to tell)" if count < ENOUGH else f" ({count} cases)"
        lines.append(f"{condition}: {ours} {figures[ours]:.2f}, best baseline {best} {figures[best]:.2f}: {met}{few}")
    return lines
