"""The page of a game that is no request: its players by group, its own words, and what can be done with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.explain import explain
from spex_proxy.flows.game import store_game
from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade
from tests.browser.axe import axe, told, violations
from tests.browser.serving import Site, site
from tests.story.explaining import Desk
from tests.story.games import NAMES, plugins

__all__ = ["axe"]

pytestmark = pytest.mark.browser

Open = Callable[..., Page]
TERMS = [[[0], 2.0], [[1, 3], 3.0], [[4], -1.0]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """A site over a store with one game, and the game's id."""
    path: Path = tmp_path_factory.mktemp("games") / "spex.db"
    store = open_store(f"sqlite:///{path}")
    upgrade(store)
    desk = Desk("http://127.0.0.1:9", store, plugins=plugins())
    ids: list[str] = []

    async def play() -> None:
        with desk.parts() as parts:
            async with parts.servers:
                stored = await store_game("planted", {"terms": TERMS}, parts, project="default")
                await explain(stored.exchange.id, Recipe(target_r2=1.0, replicates=2), parts, project="default")
        ids.append(stored.exchange.id)

    # a thread of its own: the browser may hold this one's event loop already
    thread = threading.Thread(target=lambda: asyncio.run(play()))
    thread.start()
    thread.join()
    desk.close()
    with site(store) as running:
        yield running, ids[0]
    store.dispose()


def test_players_stand_by_group_in_the_games_own_words(open_page: Open, played: tuple[Site, str]) -> None:
    running, game = played
    page = open_page(f"{running.url}/spex/exchanges/{game}")
    expect(page.get_by_role("heading", level=1)).to_have_text("What makes this value?")
    rows = page.locator("table.grid tr")
    assert [row.locator(".n").all_text_contents() for row in rows.all()] == [["1", "2", "3"], ["4", "5", "6"]]
    expect(rows.nth(1).locator("th")).to_have_text("row 1")
    expect(page.locator("#s1")).to_have_attribute("title", f"{NAMES[0]}: +2.00 points")
    expect(page.locator(".ranking")).to_contain_text("How much keeping a player adds to the value, in points")
    expect(page.locator(".trust")).to_contain_text("Nothing was trained.")
    expect(page.locator("main")).not_to_contain_text("Leave out")  # there is no prompt to ask again
    page.get_by_text("What was measured: 2 values").click()
    expect(page.get_by_text("second question")).to_be_visible()


def test_what_acts_together_has_its_measured_table(open_page: Open, played: tuple[Site, str]) -> None:
    running, game = played
    page = open_page(f"{running.url}/spex/exchanges/{game}")
    pair = page.locator(".pair").first
    expect(pair.locator(".pair-n")).to_have_text("2×4")
    pair.locator("summary").click()
    expect(pair.locator(".sentence")).to_have_text(
        "With both kept, the value gains 3.00 points more than 2 and 4 bring one by one."
    )
    expect(pair.locator("tfoot")).to_contain_text("+3.00")
    expect(pair).to_contain_text("4 of 4 such coalitions were measured")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(open_page: Open, played: tuple[Site, str], axe: str, scheme: str) -> None:
    running, game = played
    page = open_page(f"{running.url}/spex/exchanges/{game}", color_scheme=scheme)
    found = violations(page, axe)
    assert not found, told(found)
