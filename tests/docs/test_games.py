"""The example of docs/games.md is played."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spex_proxy.flows.playing import check_rules
from spex_proxy.plug.kinds import GameMaker, OpenGame

PAGE = Path(__file__).parents[2] / "docs" / "games.md"


@pytest.fixture
def maker() -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["VotesMaker"]()


def test_the_example_is_a_game(maker: Any) -> None:
    assert isinstance(maker, GameMaker)
    game = maker.open({"weights": [3, 2, 1], "quota": 4}, None)
    assert isinstance(game, OpenGame)
    check_rules("votes", game.rules)
    masks = np.asarray([[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=bool)
    assert game.measure(masks).readings.tolist() == [[1], [1], [1], [0], [0], [0]]
    game.close()


def test_its_mistake_is_told(maker: Any) -> None:
    with pytest.raises(ValueError, match="quota: more than all votes"):
        maker.open({"weights": [1], "quota": 2}, None)
