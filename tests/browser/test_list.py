"""The list of exchanges: what stands there, filters, pages, finding by any id, rows that move."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from spex_proxy.store import outbox, steering
from tests.browser.serving import Site
from tests.browser.stories import Stories
from tests.contract.store.samples import NOON, Make

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


def test_every_exchange_is_there_newest_first_with_its_state(open_page: Open, shared: Site, stories: Stories) -> None:
    page = open_page(f"{shared.url}/spex/")
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(11)
    assert rows.first.get_attribute("data-id") == stories.running
    words = [row.locator(".badge").inner_text() for row in rows.all()]
    assert words == [
        "explaining", "waiting", "reliable", "reliable", "reliable", "not reliable", "nothing to explain",
        "cancelled", "failed", "reliable", "not explained",
    ]  # fmt: skip
    unreliable = page.locator(f"tr[data-id='{stories.unreliable}']")
    assert unreliable.locator(".is-unreliable").count() == 2, "the figure is grey wherever the badge is red"
    failed = page.locator(f"tr[data-id='{stories.failed}']")
    expect(failed).to_contain_text("the server's reply lacks log-probabilities")
    expect(page.locator(f"tr[data-id='{stories.erased}']")).to_contain_text("erased")


def test_filters_apply_at_once_and_stay_in_the_address(open_page: Open, shared: Site, stories: Stories) -> None:
    page = open_page(f"{shared.url}/spex/")
    page.get_by_label("State").select_option("failed")
    page.wait_for_url("**/spex/?state=failed")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("#rows tr")).to_have_count(11)
    page.goto(f"{shared.url}/spex/?model=no-such-model")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.goto(f"{shared.url}/spex/?since=2026-11-22T12:30&until=2026-11-22T12:31")
    assert page.locator("#rows tr").first.get_attribute("data-id") == stories.queued
    expect(page.locator("#rows tr")).to_have_count(1)


def test_any_id_finds_it(open_page: Open, shared: Site, stories: Stories) -> None:
    page = open_page(f"{shared.url}/spex/", expected_errors=1)
    number = int(stories.reliable[:2])
    for text in (stories.reliable, stories.reliable[:9], f"chatcmpl-{number + 1}9b3c5d"):
        page.get_by_role("searchbox").fill(text)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/spex/exchanges/{stories.reliable}")
        page.go_back()
    page.get_by_role("searchbox").fill("<b>no-such-id</b>")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    expect(page.locator("main")).to_contain_text("<b>no-such-id</b>")


def test_a_cursor_leads_to_older_ones(open_page: Open, empty: Site) -> None:
    make = Make()
    with empty.store.begin() as conn:
        for minute in range(95):
            make.saved(conn, received_at=NOON + timedelta(minutes=minute), output_text=f"Answer {minute}.")
    page = open_page(f"{empty.url}/spex/")
    seen = []
    while True:
        seen += page.locator("#rows .what a").all_inner_texts()
        older = page.get_by_role("link", name="Older")
        if not older.count():
            break
        older.click()
    assert seen == [f"Answer {minute}." for minute in reversed(range(95))]
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("#rows tr").first).to_contain_text("Answer 94.")


def test_a_row_that_is_queued_is_followed_until_it_ends(open_page: Open, own: Site, stories: Stories) -> None:
    page = open_page(f"{own.url}/spex/")
    row = page.locator(f"tr[data-id='{stories.queued}']")
    expect(row).to_contain_text("waiting")
    with own.store.begin() as conn:
        steering.cancel(conn, outbox.jobs_of_exchange(conn, stories.queued)[0].id)
    expect(row).to_contain_text("cancelled")


def test_the_first_visit_teaches(open_page: Open, empty: Site) -> None:
    page = open_page(f"{empty.url}/spex/")
    expect(page.get_by_role("heading", name="Nothing has passed through yet")).to_be_visible()
    expect(page.locator("main")).to_contain_text("curl http://127.0.0.1:8080/v1/chat/completions")
    expect(page.locator("main")).to_contain_text("x-spex-explain: yes")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(open_page: Open, shared: Site, scheme: str) -> None:
    page = open_page(f"{shared.url}/spex/", viewport={"width": 360, "height": 700}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    light = [sum(int(part) for part in colour[4:-1].split(",")) for colour in (ink, paper)]
    assert (light[0] < light[1]) == (scheme == "light")
