"""While an explanation is made: its progress, live; asking for one, cancelling one, what became of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from spex_proxy.store import games, outbox, steering
from tests.browser.serving import Site
from tests.browser.stories import Stories, answered, explained, refund

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


def test_progress_is_shown_live_and_ends_in_the_explanation(open_page: Open, own: Site, stories: Stories) -> None:
    page = open_page(f"{own.url}/spex/exchanges/{stories.running}")
    bar = page.get_by_role("progressbar")
    before = int(str(bar.get_attribute("value")))
    assert 0 < before < int(str(bar.get_attribute("max"))) == 192
    expect(page.locator("#job")).to_contain_text("of at most 192")
    blocks, _ = answered(stories.running_game, stories.running_job.recipe(), refund, limit=before + 16)
    with own.store.begin() as conn:
        for block in blocks:
            games.append_block(conn, stories.running_game.id, block)
    expect(bar).not_to_have_attribute("value", str(before))
    with own.store.begin() as conn:
        exchange = stories.exchange(conn, stories.running)
        explanation = explained(conn, stories.make, exchange, refund, game=stories.running_game)
        outbox.finish(conn, stories.running_job, explanation.id)
    expect(page.get_by_role("heading", name="Why this answer?")).to_be_visible()
    expect(page.locator(".trust .badge")).to_have_text("reliable")


def test_cancel(open_page: Open, own: Site, stories: Stories) -> None:
    page = open_page(f"{own.url}/spex/exchanges/{stories.queued}")
    expect(page.locator("#job")).to_contain_text("Waiting for its turn")
    expect(page.locator("#job")).to_contain_text("place in the queue")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    with own.store.connect() as conn:
        assert outbox.jobs_of_exchange(conn, stories.queued)[0].state == "cancelled"


def test_a_paused_job_can_be_resumed(open_page: Open, own: Site, stories: Stories) -> None:
    with own.store.begin() as conn:
        steering.pause(conn, outbox.jobs_of_exchange(conn, stories.queued)[0].id)
    page = open_page(f"{own.url}/spex/exchanges/{stories.queued}")
    expect(page.get_by_role("heading", name="Paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("heading", name="Waiting for its turn")).to_be_visible()


def test_explain_now_with_options(open_page: Open, own: Site, stories: Stories) -> None:
    page = open_page(f"{own.url}/spex/exchanges/{stories.captured}")
    expect(page.get_by_role("heading", name="Not explained")).to_be_visible()
    page.get_by_text("Options").click()
    page.get_by_label("Segments").select_option("word")
    page.get_by_label("Most masks").fill("64")
    page.get_by_role("button", name="Explain now").click()
    expect(page.get_by_role("heading", name="Waiting for its turn")).to_be_visible()
    with own.store.connect() as conn:
        job = outbox.jobs_of_exchange(conn, stories.captured)[0]
    assert (job.priority, job.recipe_json["segmenter"], job.recipe_json["budget"]) == (1, "word", 64)


def test_a_refusal_is_said_in_its_place(open_page: Open, own: Site, stories: Stories) -> None:
    page = open_page(f"{own.url}/spex/exchanges/{stories.captured}", expected_errors=1)
    own.is_down = True
    page.get_by_role("button", name="Explain now").click()
    expect(page.locator(".said")).to_contain_text("the store")
    expect(page.get_by_role("button", name="Explain now")).to_be_enabled()


def test_failed_says_why(open_page: Open, shared: Site, stories: Stories) -> None:
    page = open_page(f"{shared.url}/spex/exchanges/{stories.failed}")
    expect(page.get_by_role("heading", name="Could not be explained")).to_be_visible()
    expect(page.locator("#job")).to_contain_text("the server's reply lacks log-probabilities")
    expect(page.get_by_role("button", name="Explain now")).to_be_visible()


def test_a_store_that_is_down_gives_a_page_in_words(open_page: Open, own: Site, stories: Stories) -> None:
    own.is_down = True
    page = open_page(f"{own.url}/spex/exchanges/{stories.failed}", expected_errors=1)
    expect(page.locator("main")).to_contain_text("Production is not affected")
    own.is_down = False
    page.reload()
    expect(page.get_by_role("heading", name="Could not be explained")).to_be_visible()
