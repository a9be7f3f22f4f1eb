"""More masks than a batch, and removals that are really done."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from spex_proxy.facts.evidence import Masks
from spex_proxy.plug import playing
from spex_proxy.plug.kinds import Measured, Player, Rules


class Weights:
    """Two items: the sum of the kept players' weights, and its negative. Player 3 alone can't be measured."""

    def __init__(self) -> None:
        players = tuple(Player(name) for name in "abcd")
        self.rules = Rules("training", "weights", players, ("sum", "debt"), "mean", "points", "sha256:00", 3, "nothing")
        self.batches: list[int] = []

    def measure(self, masks: Masks) -> Measured:
        self.batches.append(len(masks))
        total = masks @ np.asarray([4.0, -1.0, 2.0, -3.0])
        readings = np.stack([total, -total], axis=1).astype(np.float32)
        failures = {row: "it fell over" for row, mask in enumerate(masks.tolist()) if mask == [False] * 3 + [True]}
        readings[list(failures)] = np.nan
        return Measured(readings, failures, prompt_tokens=10 * len(masks), cached_tokens=len(masks))

    def close(self) -> None: ...


def test_batches_are_joined() -> None:
    game = Weights()
    masks = np.asarray([[n >> i & 1 for i in range(4)] for n in range(16)], dtype=np.bool_)
    found = playing.measure(game, masks)
    assert game.batches == [3, 3, 3, 3, 3, 1]
    assert found.failures == {8: "it fell over"}
    assert np.flatnonzero(np.isnan(found.readings).any(axis=1)).tolist() == [8]
    assert found.readings[15].tolist() == [2.0, -2.0]
    assert (found.prompt_tokens, found.cached_tokens) == (160, 16)


def test_removals_turn_or_do_not() -> None:
    done = playing.removals(Weights(), 0, [(0,), (1,), (0, 1, 2), ()])
    assert [(one.before, one.turns) for one in done] == [(2.0, True), (2.0, False), (2.0, False), (2.0, False)]
    assert [one.after for one in done[:2]] == [-2.0, 3.0]
    assert (done[2].failure, math.isnan(done[2].after)) == ("it fell over", True)
    assert [one.turns for one in playing.removals(Weights(), 1, [(0,), (3,)])] == [True, False]


def test_removals_of_nobody_are_refused() -> None:
    for item, sets in ((2, [(0,)]), (0, [(4,)]), (-1, [(0,)])):
        with pytest.raises(ValueError, match="is outside"):
            playing.removals(Weights(), item, sets)


def test_without_a_full_reading_nothing_is_compared() -> None:
    class Broken(Weights):
        def measure(self, masks: Masks) -> Measured:
            return replace(super().measure(masks), failures={0: "no weights today"})

    with pytest.raises(ValueError, match="no weights today"):
        playing.removals(Broken(), 0, [(0,)])
