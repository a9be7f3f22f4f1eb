"""`verify` passes for what is so, and fails for every way of making it otherwise."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from spex_proxy.engine import proxyspex
from spex_proxy.engine.forest import Shape
from spex_proxy.facts.errors import SpexError
from spex_proxy.facts.explanation import Check
from spex_proxy.flows.verify import verify
from spex_proxy.plug.load import Plugins
from spex_proxy.store import exchanges
from spex_proxy.store.columns import utc_now
from spex_proxy.store.connect import open_store, reading
from tests.story.explaining import RECIPE, Desk, question, sentences
from tests.story.scripted_model import ScriptedModel, planted
from tests.story.tampering import TAMPERINGS, block, consistent_value, mask_bit

GAME = planted(-12, {("Bravo",): 1.5, ("Alpha", "Delta"): 4})
KINDS = {
    "exact": (GAME, 5, RECIPE),
    "proxyspex": (GAME, 6, replace(RECIPE, budget=26, method="proxyspex")),
    "stack": (GAME, 6, replace(RECIPE, budget=26)),
    "constant": (planted(-5, {}), 5, RECIPE),
}
"""How a fit comes about -> game, players, recipe."""


@pytest.fixture(scope="module")
def explained(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One store for each kind of fit, with one explanation in it."""
    folder = tmp_path_factory.mktemp("explained")
    return {kind: make(kind, Path(shutil.copy(empty_store, folder / f"{kind}.db"))) for kind in KINDS}


def make(kind: str, path: Path) -> Path:
    game, players, recipe = KINDS[kind]
    store = open_store(f"sqlite:///{path}")
    with ScriptedModel(game) as model:
        desk = Desk(model.url, store, recipe)
        desk.ask(question(sentences(players)))
        explanation = asyncio.run(desk.explanation())
        desk.close()
    assert explanation.how["method"] == kind
    store.dispose()
    return path


def check(path: Path) -> list[Check]:
    store = open_store(f"sqlite:///{path}")
    try:
        with reading(store) as connection:
            (explanation_id,) = connection.exec_driver_sql("SELECT id FROM explanations").one()
            return verify(connection, explanation_id, "default", Plugins())
    finally:
        store.dispose()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_so_verifies(kind: str, explained: dict[str, Path]) -> None:
    checks = check(explained[kind])
    assert len(checks) == 10
    assert [c for c in checks if not c.is_passed or c.is_skipped] == []


def test_what_another_recipe_asked_of_the_same_game_before_verifies(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its masks are stored with the game: they train, and this recipe's own judge, when it is refitted too."""
    monkeypatch.setattr(proxyspex, "SHAPES", (Shape(1, 0.3, 25), Shape(3, 0.3, 25)))
    store = open_store(f"sqlite:///{shutil.copy(empty_store, tmp_path / 'spex.db')}")
    with ScriptedModel(GAME) as model:
        desk = Desk(model.url, store, replace(RECIPE, design="keep=0.8", budget=40, method="proxyspex"))
        exchange = desk.ask(question(sentences(7)))
        first = asyncio.run(desk.explanation())
        desk.queue_again(exchange, design="uniform", budget=50)
        second = asyncio.run(desk.explanation())
        desk.close()
    assert first.game_ids == second.game_ids
    assert second.cost.masks > first.cost.masks
    for explanation in (first, second):
        assert [c for c in desk.checks(explanation.id) if not c.is_passed or c.is_skipped] == []
    store.dispose()


@pytest.mark.parametrize("case", TAMPERINGS)
def test_tampering_with_an_exact_explanation_is_caught(case: str, explained: dict[str, Path], tmp_path: Path) -> None:
    assert_caught(case, explained["exact"], tmp_path)


@pytest.mark.parametrize("kind", ["proxyspex", "stack"])
@pytest.mark.parametrize("case", ["a value and its log-probabilities", "a mask bit", "a coefficient", "the seed"])
def test_tampering_with_an_estimated_explanation_is_caught(
    case: str, kind: str, explained: dict[str, Path], tmp_path: Path
) -> None:
    assert_caught(case, explained[kind], tmp_path)


def test_a_warning_can_not_be_taken_away(explained: dict[str, Path], tmp_path: Path) -> None:
    path = Path(shutil.copy(explained["constant"], tmp_path / "spex.db"))
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("DELETE FROM flags").rowcount == 1
    assert [c.name for c in check(path) if not c.is_passed] == ["what is told about it follows"]


def assert_caught(case: str, source: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(source, tmp_path / "spex.db"))
    with closing(sqlite3.connect(path)) as db, db:
        before = list(db.iterdump())
        TAMPERINGS[case](db)
        assert list(db.iterdump()) != before, "nothing was tampered with"
    try:
        checks = check(path)
    except SpexError:
        return  # what can't even be read is not believed either
    assert not all(c.is_passed for c in checks)


def test_after_erasure_the_rest_still_verifies_and_tampering_is_still_caught(
    explained: dict[str, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(explained["exact"], tmp_path / "spex.db"))
    store = open_store(f"sqlite:///{path}")
    with store.begin() as connection:
        (exchange_id,) = connection.exec_driver_sql("SELECT id FROM exchanges").one()
        exchanges.erase_content(connection, exchange_id, utc_now())
    store.dispose()
    checks = check(path)
    assert all(c.is_passed for c in checks)
    assert [c.name for c in checks if c.is_skipped] == ["masks and answer are those that were asked"]
    for number, change in enumerate((consistent_value, mask_bit)):
        copy = Path(shutil.copy(path, tmp_path / f"{number}.db"))
        with closing(sqlite3.connect(copy)) as db, db:
            block(change)(db)
        assert not all(c.is_passed for c in check(copy))
