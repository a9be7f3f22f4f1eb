"""What a study answers to questions about sets and orders of players, each with a repr that reads well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spex_proxy.engine import curves, extremes
from spex_proxy.engine.extremes import Extreme
from spex_proxy.study import words
from spex_proxy.study.text import label

MOST_STEPS = 8
"""Steps of a deletion curve that its text shows."""
MOST_NAMES = 5
"""Of a set, that its text shows."""
NAME = 28
"""Characters of each."""
LONGEST = 60
"""Characters of a name on a line of its own."""


@dataclass(frozen=True, slots=True, repr=False)
class Extremes:
    """The best and the worst set of a size."""

    highest: Extreme
    lowest: Extreme
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"highest  {self._line(self.highest)}\nlowest   {self._line(self.lowest)}"

    def _line(self, found: Extreme) -> str:
        few, word = min((found.kept, "keep"), (found.removed, "remove"), key=lambda one: len(one[0]))
        proven = "proven" if found.is_proven else f"not proven: another set may go {found.gap:.3g} further"
        return f"{words.signed(found.value, 3)}  {word} {listed(few, self.names)}  ({proven})"


@dataclass(frozen=True, slots=True, repr=False)
class Smallest:
    """The smallest set of players that does something, as far as is known."""

    found: extremes.Smallest
    deed: str
    """`removing` or `keeping`: what is done with the set."""
    names: tuple[str, ...]

    @property
    def players(self) -> tuple[int, ...] | None:
        """Columns of the masks; None: no set was found, and if `is_proven`, there is none."""
        return self.found.players

    @property
    def value(self) -> float:
        """What the spectrum says once it is done; NaN without a set."""
        return self.found.value

    @property
    def is_proven(self) -> bool:
        return self.found.is_proven

    @property
    def gap(self) -> int:
        """How many players fewer a smaller set could have at most."""
        return self.found.gap

    def __repr__(self) -> str:
        found = self.found
        if found.players is None:
            proven = "proven" if found.is_proven else "not proven: the time was up"
            return f"no set does: whatever is kept, the value stays on its side of {found.threshold:g} ({proven})"
        proven = "no fewer do, proven" if found.is_proven else f"not proven: {found.at_least} may do"
        what = f"{self.deed} {listed(found.players, self.names)}: {words.decimal(found.value, 3)}"
        return f"{len(found.players)} of {len(self.names)} players: {what}, threshold {found.threshold:g} ({proven})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Curves:
    """Deletion and insertion, in one order."""

    names: tuple[str, ...]
    """The most important first."""
    deletion: curves.Curve
    insertion: curves.Curve
    is_measured: bool
    """False: the values are the spectrum's predictions."""

    def __repr__(self) -> str:
        said = "measured" if self.is_measured else "as predicted"
        lines = [f"{said}: area under deletion {self.deletion.area:.3f}, under insertion {self.insertion.area:.3f}"]
        shown = self.deletion.values[: 1 + MOST_STEPS].tolist()
        digits = words.digits_for(max((abs(value) for value in shown if math.isfinite(value)), default=0.0))
        for removed, value in enumerate(shown):
            what = f"without {label(self.names[removed - 1], LONGEST)}" if removed else "all players"
            lines.append(f"{words.decimal(value, digits):>12}  {what}")
        return "\n".join(lines)


def listed(players: Sequence[int], names: Sequence[str]) -> str:
    """Names of a set on one line."""
    shown = ", ".join(label(names[player], NAME) for player in players[:MOST_NAMES])
    more = len(players) - MOST_NAMES
    return (shown + (f" and {more} more" if more > 0 else "")) or "no player"
