"""The files that the documentation tells people to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from spex_proxy.plug import playing
from spex_proxy.plug.kinds import OpenGame
from spex_proxy_training.in_context import InContext
from spex_proxy_training.maker import Training
from spex_proxy_training.table import Table
from tests.training_data.test_in_context import Parrot

DOCS = Path(__file__).parents[2] / "docs"


def example(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DOCS / "examples" / name).read_text())
    return read


def opened(name: str) -> OpenGame:
    if name == "in_context.yaml":
        return InContext().open(example(name), Parrot())
    return Training().open(example(name), None)


@pytest.mark.parametrize(
    ("name", "players", "items"), [("digits.yaml", 40, 8), ("reviews.yaml", 12, 8), ("in_context.yaml", 6, 2)]
)
def test_it_opens_and_plays(name: str, players: int, items: int) -> None:
    game = opened(name)
    assert (len(game.rules.players), len(game.rules.items)) == (players, items)
    found = playing.measure(game, np.stack([np.ones(players, dtype=np.bool_), np.arange(players) % 2 == 0]))
    assert not found.failures
    assert not np.array_equal(found.readings[0], found.readings[1])


def test_a_table_under_the_names_of_its_example(tmp_path: Path) -> None:
    np.savez(tmp_path / "runs.npz", masks=np.eye(3, dtype=np.bool_), margins=np.arange(3.0))
    game = Table().open({**example("table.yaml"), "file": str(tmp_path / "runs.npz")}, None)
    assert (game.rules.subject, game.rules.unit) == ("my runs", "margin")


def test_every_name_that_a_file_may_hold_is_in_the_docs() -> None:
    from spex_proxy_training import estimators, examples, in_context, maker, modules, table  # noqa: PLC0415

    written = (DOCS / "training_data.md").read_text()
    names = {
        *maker.KNOWN, *examples.KNOWN, *estimators.KNOWN, *estimators.SHORT, *modules.KNOWN, *modules.PARAMETERS,
        *in_context.KNOWN, *table.KNOWN,
    }  # fmt: skip
    assert not [name for name in sorted(names) if f"`{name}" not in written and f"{name}:" not in written]
