"""Search on the list, the dashboard of shares, two explanations side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.store import exchanges, explanations, games
from spex_proxy.store.tables import exchanges as table
from tests.browser.serving import Site
from tests.browser.stories import HOSTILE, Stories, game_of
from tests.contract.store.samples import NOON, Make

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


def drawn(site: Site) -> None:
    """Everything that is explained was drawn at random."""
    with site.store.begin() as conn:
        conn.execute(sa.update(table).values(explain_why="sampled", capture_probability=0.5, explain_probability=0.5))


def test_words_are_found_and_stay_in_the_form(open_page: Open, shared: Site, stories: Stories) -> None:
    page = open_page(f"{shared.url}/spex/")
    field = page.get_by_role("textbox", name="Words of prompt or answer")
    field.fill('"ticket is refunded" cancelled')
    page.keyboard.press("Enter")
    page.wait_for_url("**text=**")
    expect(page.locator(f"tr[data-id='{stories.reliable}']")).to_be_visible()
    expect(field).to_have_value('"ticket is refunded" cancelled')
    field.fill("nosuchwordanywhere")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()


def test_a_query_that_would_read_everything_says_what_to_add(open_page: Open, shared: Site) -> None:
    page = open_page(f"{shared.url}/spex/?r2_min=0.5")
    expect(page.get_by_role("alert")).to_contain_text("give a time range too")
    page.get_by_label("Received").select_option("30d")
    page.wait_for_url("**range=30d**")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_label("R² at least")).to_have_value("0.5")


def test_signs_alone_are_no_words(open_page: Open, shared: Site) -> None:
    page = open_page(f"{shared.url}/spex/?text=%3Cscript%3E!!%3C&text=%3C%3E")
    expect(page.get_by_role("alert")).to_contain_text("at least one word")


def test_the_dashboard_says_shares_in_words_too(open_page: Open, own: Site) -> None:
    drawn(own)
    page = open_page(f"{own.url}/spex/dashboard?since=2026-11-01T00:00&until=2026-12-01T00:00&by=model")
    expect(page.get_by_role("heading", name="Depends on")).to_be_visible()
    bars = page.get_by_role("img")
    assert bars.count() >= 4
    assert "95% interval" in str(bars.first.get_attribute("aria-label"))
    expect(page.locator("main")).to_contain_text("a tool result")
    page.get_by_label("A document that says").fill('"free yearly pass"')
    page.keyboard.press("Enter")
    page.wait_for_url("**document=**")
    expect(page.locator(".share.is-document")).to_be_visible()


def test_an_empty_dashboard_and_an_endless_window_help(open_page: Open, empty: Site) -> None:
    page = open_page(f"{empty.url}/spex/dashboard")
    expect(page.get_by_role("heading", name="Nothing to estimate from")).to_be_visible()
    expect(page.locator("main")).to_contain_text("SPEX_EXPLAIN_RATE")
    page.goto(f"{empty.url}/spex/dashboard?range=24h&document=%21")
    expect(page.get_by_role("alert")).to_contain_text("at least one word")


def test_two_explanations_are_compared(open_page: Open, own: Site, stories: Stories) -> None:
    page = open_page(f"{own.url}/spex/compare", expected_errors=1)  # the last address is nobody's
    expect(page.get_by_role("heading", name="Which two?")).to_be_visible()
    page.get_by_label("First", exact=True).fill(stories.reliable)
    page.get_by_label("Second", exact=True).fill(stories.unreliable)
    page.keyboard.press("Enter")
    page.wait_for_url("**a=**")
    expect(page.locator("main")).to_contain_text("NOT RELIABLE")
    expect(page.get_by_role("table", name="Segments, the largest change first")).to_be_visible()
    page.goto(f"{own.url}/spex/compare?a={stories.reliable}&b=nobody-nobody")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()


def test_hostile_texts_stay_text(open_page: Open, own: Site) -> None:
    """Compared, listed and searched: nothing of it runs, and a line of 1 MB breaks no page."""
    make = Make()
    with own.store.begin() as conn:
        for number in (400, 401):
            exchange = make.saved(
                conn, id=f"7{number}0000-hostile", output_text=HOSTILE + "x" * 1_000_000, received_at=NOON
            )
            game = game_of(make, exchange)
            games.save_game(conn, game)
            made = make.explanation(
                exchange.id, (game.id,), id=f"7{number}f000-explained",
                spectrum=Spectrum.from_terms(len(game.players), [(0,)], [-1.0]), interactions=(),
            )  # fmt: skip
            explanations.save_explanation(conn, made)
    page = open_page(f"{own.url}/spex/?text=pwned")
    expect(page.locator("#rows tr").first).to_be_visible()
    page.goto(f"{own.url}/spex/compare?a=7400f000-explained&b=7401f000-explained")
    expect(page.get_by_role("table")).to_be_visible()
    assert page.evaluate("window.pwned") is None
    with own.store.begin() as conn:
        exchanges.erase_content(conn, "74000000-hostile", NOON)
    page.reload()
    expect(page.locator("main")).to_contain_text("were erased")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "path", ["dashboard?since=2026-11-01T00:00&by=model", "compare?a={a}&b={b}", "?r2_min=0.1&range=30d"]
)
def test_they_fit_a_phone_in_light_and_dark(
    open_page: Open, own: Site, stories: Stories, path: str, scheme: str
) -> None:
    drawn(own)
    address = path.format(a=stories.reliable, b=stories.unreliable)
    page = open_page(f"{own.url}/spex/{address}", viewport={"width": 360, "height": 700}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
