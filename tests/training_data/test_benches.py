"""What the benches make of their measurements: known answers."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest

from bench import headline, training


def fits(method: str, *points: tuple[int, float], seed: int = 0) -> list[dict[str, Any]]:
    return [{"game": "training", "n": 40, "method": method, "seed": seed, "asked": a, "r2": r2} for a, r2 in points]


def test_queries_are_interpolated_on_a_log_scale() -> None:
    some = [*fits("spex", (100, 0.5), (400, 0.7)), {"method": "spex", "failed": "too few"}]
    assert headline.queries(some, 0.6) == (pytest.approx(200.0), True)
    assert headline.queries(some, 0.8) == (400.0, False)
    assert headline.queries(fits("spex", (96, 0.9)), 0.6) == (96.0, True)
    # R2 that falls and rises again counts from where it last was below
    assert headline.queries(fits("spex", (50, 0.5), (100, 0.4), (200, 0.8)), 0.6)[0] == pytest.approx(100 * sqrt(2))


def test_a_level_that_spex_misses_is_a_bound() -> None:
    some = [*fits("proxyspex", (50, 0.7)), *fits("spex", (100, 0.5), (400, 0.65))]
    one = headline.summary(some, "training", 0.6)
    assert (one["is_bound"], one["is_known"]) == (False, True)
    missed = headline.summary(some, "training", 0.7)
    assert (missed["ratio"], missed["is_bound"]) == (8.0, True)
    assert "at least 8.0" in headline.report(some)
    assert "proxyspex did not reach it" in headline.report(some)
    assert "training: at least 8.0" in headline.drawn(some)


def cell(players: int, item: int, turns: bool | None, lds: float = 0.9) -> dict[str, Any]:
    flip = None if turns is None else {"removed": 3, "turns": turns}
    return {
        "players": players, "seed": 0, "item": item, "stack_lds": lds, "order1_lds": 0.8, "stack_flip": flip,
        "order1_flip": None, "training_seconds": 0.01, "stack_seconds": 2.0,
    }  # fmt: skip


def test_flips_are_counted_in_the_order_of_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CASES", 3)
    found = [cell(40, 0, True), cell(40, 1, None), cell(40, 2, False), cell(60, 0, True), cell(60, 5, True)]
    assert [(one["players"], one["item"]) for one in training.first_flips(found)] == [(40, 0), (60, 0), (40, 2)]
    said = training.verdicts(found)
    assert said[0].startswith("LDS of stack above order 1: yes (for 2 of 2 sizes)")
    assert "2 of 3 (67%" in said[1]
    assert "NO (for 1 of 2 sizes)" in training.verdicts([*found, cell(60, 6, None, lds=0.1)])[0]
