"""What is done with an open game by whoever has one: ask more masks than a batch holds, and re-test removals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spex_proxy.facts.evidence import Masks
from spex_proxy.plug.kinds import Measured, OpenGame


@dataclass(frozen=True, slots=True)
class Removal:
    """A set that was really left out."""

    players: tuple[int, ...]
    before: float
    """Reading of the item with everything kept."""
    after: float
    """Without the set; NaN where that failed."""
    failure: str = ""

    @property
    def turns(self) -> bool:
        """The sign is another one; what failed turns nothing."""
        return not self.failure and (self.before >= 0) != (self.after >= 0)


def measure(game: OpenGame, masks: Masks) -> Measured:
    """All rows of masks (m, n), in batches that the game allows, m >= 1."""
    parts = [game.measure(masks[at : at + game.rules.batch]) for at in range(0, len(masks), game.rules.batch)]
    failures = {
        number * game.rules.batch + row: why for number, part in enumerate(parts) for row, why in part.failures.items()
    }
    return Measured(
        np.concatenate([part.readings for part in parts]),
        failures,
        sum(part.prompt_tokens for part in parts),
        sum(part.cached_tokens for part in parts),
    )


def removals(game: OpenGame, item: int, sets: Sequence[tuple[int, ...]]) -> list[Removal]:
    """Leave each set out, all else kept, and read one of the game's items: what a spectrum predicted, done.

    Raises ValueError for an item or a player that is not of the game, and where the full coalition has no reading.
    """
    n, k = len(game.rules.players), len(game.rules.items)
    if not 0 <= item < k or any(not 0 <= player < n for players in sets for player in players):
        raise ValueError(f"the game has {k} items and {n} players; item {item} or a set is outside")
    masks = np.ones((1 + len(sets), n), dtype=np.bool_)
    for row, players in enumerate(sets, start=1):
        masks[row, list(players)] = False
    found = measure(game, masks)
    if 0 in found.failures:
        raise ValueError(f"the full coalition has no reading: {found.failures[0]}")
    values = found.readings[:, item].astype(np.float64)
    return [
        Removal(tuple(players), float(values[0]), float(values[row]), found.failures.get(row, ""))
        for row, players in enumerate(sets, start=1)
    ]
