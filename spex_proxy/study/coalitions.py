"""The 2^k table of players that act together: what the answer is worth with none, with A, with B, with both.

This is what anyone can check: rows that were measured say so, and so do those that are only predicted. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spex_proxy.engine.rows import Rows
from spex_proxy.engine.subsets import MOST_PLAYERS, choose, coalitions
from spex_proxy.engine.walsh import predict
from spex_proxy.facts.spectrum import Spectrum

__all__ = ["MOST_PLAYERS", "Coalition", "Table", "make_table"]


@dataclass(frozen=True, slots=True)
class Coalition:
    """One line: some of the chosen players kept, the others masked."""

    kept: tuple[bool, ...]
    """One for each chosen player."""
    value: float
    """Value while every other player is kept."""
    is_measured: bool
    """True if `value` was measured; False if the spectrum predicts it."""
    average: float | None
    """Mean over the stored random masks that keep exactly these of the chosen players, whatever else they keep."""
    error: float | None
    """Standard error of that mean; None for fewer than two masks."""
    count: int
    """How many masks that mean is over."""


@dataclass(frozen=True, slots=True)
class Table:
    """All 2^k lines, from none to all."""

    players: tuple[int, ...]
    """From 0."""
    lines: tuple[Coalition, ...]
    joint: float
    """What the players do together while the rest is kept: the alternating sum of the values;
    for two players, both - A alone - B alone + neither."""
    joint_average: float | None
    """The same of the averages; None if one of them is missing."""
    joint_error: float | None
    """Standard error of `joint_average`; None if one of them has none."""

    @property
    def measured(self) -> int:
        return sum(line.is_measured for line in self.lines)


def make_table(spectrum: Spectrum, rows: Rows, players: Sequence[int], later: Rows | None = None) -> Table:
    """`rows`: the evidence that the explanation cites. `later`: all of the game's by now; what was asked on purpose
    since then can be a line's value, but is no sample for its average.

    Raises ValueError for players that are not of the game, are named twice, or are too many.
    """
    chosen = choose(players, spectrum.n_players)
    masks = coalitions(chosen, spectrum.n_players)
    kept = masks[:, chosen]
    lines = tuple(
        _line(rows, later or rows, chosen, mask, float(guess))
        for mask, guess in zip(masks, predict(spectrum, masks), strict=True)
    )
    signs = (-1.0) ** (len(chosen) - kept.sum(axis=1))
    averages = [line.average for line in lines if line.average is not None]
    errors = [line.error for line in lines if line.error is not None]
    return Table(
        players=chosen,
        lines=lines,
        joint=float(signs @ [line.value for line in lines]),
        joint_average=float(signs @ averages) if len(averages) == len(lines) else None,
        joint_error=float(np.linalg.norm(errors)) if len(errors) == len(lines) else None,
    )


def _line(rows: Rows, later: Rows, chosen: tuple[int, ...], mask: np.ndarray, guess: float) -> Coalition:
    kept = tuple(bool(bit) for bit in mask[list(chosen)])
    same = np.flatnonzero((later.masks == mask).all(axis=1))
    alike = (rows.masks[:, chosen] == mask[list(chosen)]).all(axis=1) & rows.uniform
    found = rows.values[alike]
    return Coalition(
        kept=kept,
        value=float(later.values[same[0]]) if len(same) else guess,
        is_measured=bool(len(same)),
        average=float(found.mean()) if len(found) else None,
        error=float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else None,
        count=len(found),
    )
