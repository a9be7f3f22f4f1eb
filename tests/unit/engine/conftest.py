"""Games whose answer is known, and trees that grow in no time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from spex_proxy.engine import decide, proxyspex, walsh
from spex_proxy.engine.forest import Shape
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

Game = Callable[[NDArray[np.bool_]], NDArray[np.float64]]


@pytest.fixture
def small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided does not depend on how many trees stand behind it."""
    monkeypatch.setattr(proxyspex, "SHAPES", (Shape(1, 0.3, 25), Shape(3, 0.3, 25)))


@pytest.fixture
def sparse_game() -> Callable[..., Game]:
    """A game of 3 singles, a pair and a triple among n players, with optional fixed noise per mask."""

    def build(n: int, noise: float = 0.0, scale: float = 1.0) -> Game:
        spectrum = Spectrum.from_terms(
            n, [(), (0,), (1,), (2,), (0, 1), (1, 2, 3)], scale * np.array([-7.0, 1.0, -0.8, 0.5, 0.6, 0.4])
        )

        def value(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
            jitter = np.sin(1e4 * (masks @ np.sqrt(np.arange(2.0, n + 2.0)) + 1.0)) * np.sqrt(2)
            return walsh.predict(spectrum, masks) + noise * jitter

        return value

    return build


@pytest.fixture
def answer() -> Callable[..., tuple[decide.Fit, Evidence, list[decide.Ask]]]:
    """Ask and answer until there is a fit."""

    def run(
        recipe: Recipe, n: int, game: Game, repeat_noise: float = 0.0
    ) -> tuple[decide.Fit, Evidence, list[decide.Ask]]:
        evidence, asked = Evidence.empty(n), []
        while isinstance(step := decide.decide(recipe, evidence), decide.Ask):
            asked.append(step)
            values = game(step.masks) + repeat_noise * np.where(step.replicates % 2 == 1, 1.0, -1.0)
            evidence = Evidence(
                np.concatenate([evidence.masks, step.masks]),
                np.concatenate([evidence.values, values]),
                np.concatenate([evidence.replicates, step.replicates]),
            )
        return step, evidence, asked

    return run
