"""The auditor's whole path: queue, claim, read, choose what acts together, its table, re-test, verdict, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from spex_proxy.store import cases
from spex_proxy.store.connect import reading
from tests.browser.axe import axe, told, violations
from tests.browser.reviewing import APPROVED, SUMMARY, Review, case_of, reviewing
from tests.browser.serving import Site
from tests.browser.stories import Stories

__all__ = ["axe"]
pytestmark = pytest.mark.browser

Open = Callable[..., Page]


@pytest.fixture
def review(tmp_path: Path, contexts: list[Any]) -> Iterator[Review]:
    with reviewing(tmp_path) as made:
        yield made
        while contexts:
            contexts.pop().close()


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    """For tests that change nothing."""
    with reviewing(tmp_path_factory.mktemp("review")) as made:
        yield made


def as_(page: Page, who: str) -> None:
    page.get_by_label("You are").fill(who)


def history(review: Review) -> list[tuple[str, str, str | None]]:
    with reading(review.site.store) as conn:
        return [(event.who, event.act, event.label) for event in cases.history(conn, review.case)]


def test_the_whole_path_by_mouse(open_page: Open, review: Review, tmp_path: Path) -> None:
    page = open_page(f"{review.url}/spex/review")
    rows = page.locator("#cases tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("injected instruction")
    as_(page, "ann")
    page.get_by_role("button", name="Claim the next").click()
    # read: the reason, how far to trust it, what it says in plain words, then the figure
    expect(page.locator("#case .badge")).to_have_text("claimed by ann")
    expect(page.locator(".plain")).to_contain_text("The strongest single part is segment 7")
    trust, colour = page.locator(".trust").bounding_box(), page.locator(".seg.p6").first.bounding_box()
    assert trust is not None
    assert colour is not None
    assert trust["y"] < colour["y"], "reliability comes before any colour"
    # choose what acts together, in the list; then its table: none, each, both
    pair = page.locator(".pair").first
    expect(pair.locator(".pair-n")).to_have_text("6×7")
    pair.locator("summary").click()
    expect(pair.locator("tbody tr")).to_have_count(4)
    # any other group, of which the model has not been asked everything
    for number in (2, 3, 6, 7):
        page.locator(f"#s{number}").click()
    chooser = page.locator(".chooser")
    expect(chooser.locator("tbody tr")).to_have_count(16)
    expect(chooser.locator(".predicted")).not_to_have_count(0)
    asked = len(review.model.asked)
    chooser.get_by_role("button", name="missing ones").click()
    expect(chooser.locator(".predicted")).to_have_count(0, timeout=30_000)
    expect(chooser).to_contain_text("so nothing here is a prediction")
    assert len(review.model.asked) > asked
    # is that so? ask the model without the two
    pair.get_by_role("button", name="Re-test without these").click()
    card = page.locator(".retest")
    expect(card.locator("h3")).to_have_text("The answer changes without them", timeout=30_000)
    boxes = card.locator(".said-box .text")
    expect(boxes).to_have_text([APPROVED.strip(), APPROVED.strip(), SUMMARY])
    expect(card).to_contain_text("With the whole prompt it repeats the stored answer word for word.")
    # judge
    page.locator(".labels label", has_text="injected").click()
    page.get_by_label("Note").fill("segments 6 and 7 come from the customer's mail")
    page.get_by_role("button", name="Judge and close").click()
    expect(page.locator("#case .badge")).to_have_text("injected")
    expect(page.locator(".history li")).to_have_count(3)
    assert case_of(review).label == "injected"
    assert [act for _, act, _ in history(review)] == ["opened", "claimed", "judged"]
    # the report, which needs nothing else
    with page.expect_download() as download:
        page.locator(".case-bar").get_by_role("link", name="Report").click()
    path = tmp_path / "report.html"
    download.value.save_as(path)
    alone = open_page(path.as_uri())
    expect(alone.locator(".plain")).to_contain_text("ann judged it “injected”")
    expect(alone.locator(".plain")).to_contain_text("Without segments 6 and 7 the model answers otherwise")
    expect(alone.locator(".retest .said-box")).to_have_count(3)
    expect(alone.locator(".history .note").last).to_have_text("segments 6 and 7 come from the customer's mail")
    expect(alone.locator(".about")).to_contain_text("spex-proxy verify")
    assert alone.locator(".seals dd").count() > 2
    alone.locator("#s7").hover()
    expect(alone.get_by_role("tooltip")).to_contain_text("Segment 7")


def test_the_whole_path_by_keyboard(open_page: Open, review: Review) -> None:
    page = open_page(f"{review.url}/spex/review")
    as_(page, "bob")
    page.locator("main").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("c")
    expect(page.locator("#cases tr").first.locator(".badge").last).to_have_text("claimed by bob")
    page.locator("main").focus()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/spex/cases/*")
    page.locator("main").focus()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator(".pair .coalitions").first).to_be_visible()
    page.locator("#s1").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Leave out")).to_have_value("6")
    page.keyboard.press("t")
    expect(page.locator(".retest h3")).to_have_text("The answer changes without it", timeout=30_000)
    page.keyboard.press("v")
    page.keyboard.press("4")
    page.keyboard.press("Enter")
    expect(page.locator("#case .badge")).to_have_text("injected")
    page.locator("main").focus()
    page.keyboard.press("q")
    page.wait_for_url("**/spex/review")
    expect(page.locator("#cases tr")).to_have_count(1)


def test_of_two_who_claim_one_case_the_second_is_told_who_has_it(open_page: Open, review: Review) -> None:
    ann = open_page(f"{review.url}/spex/cases/{review.case}")
    bob = open_page(f"{review.url}/spex/cases/{review.case}", expected_errors=2)
    as_(ann, "ann")
    ann.get_by_role("button", name="Claim").click()
    expect(ann.locator("#case .badge")).to_have_text("claimed by ann")
    as_(bob, "bob")
    bob.get_by_role("button", name="Claim").click()
    expect(bob.locator("#said")).to_contain_text("is ann's until")
    bob.locator(".labels label").first.click()
    bob.get_by_role("button", name="Judge and close").click()
    expect(bob.locator(".verdict .said")).to_contain_text("is ann's until")
    assert case_of(review).holder == "ann"
    ann.get_by_role("button", name="Release").click()
    expect(ann.locator("#case .badge")).to_have_text("to be judged")
    assert history(review)[-1] == ("ann", "released", None)


def test_nobody_reviews_without_a_name(open_page: Open, read_only: Review) -> None:
    page = open_page(f"{read_only.url}/spex/cases/{read_only.case}")
    page.get_by_role("button", name="Claim").click()
    expect(page.locator("#said")).to_contain_text("Say who you are first")
    expect(page.get_by_label("You are")).to_be_focused()


def test_finer_segments_are_asked_for_and_then_linked(open_page: Open, review: Review) -> None:
    page = open_page(f"{review.url}/spex/cases/{review.case}")
    expect(page.locator(".level.is-shown")).to_have_text("sentence")
    page.get_by_role("button", name="by message").click()
    expect(page.locator(".level.is-shown")).to_have_text("message", timeout=60_000)
    page.locator("a.level", has_text="sentence").click()
    expect(page.locator(".level.is-shown")).to_have_text("sentence")
    assert page.locator(".prompt .seg").count() == 10


def test_the_model_gone_at_retest_is_said_and_asked_again(open_page: Open, review: Review) -> None:
    page = open_page(f"{review.url}/spex/cases/{review.case}")
    as_(page, "ann")
    review.model.refuses = "the engine is dead"
    page.get_by_label("Leave out").fill("7")
    page.get_by_role("button", name="Re-test", exact=True).click()
    form = page.locator(".retest-form .said")
    expect(form).to_contain_text("The model could not be asked", timeout=30_000)
    expect(form).to_contain_text("the engine is dead")
    expect(page.locator(".retest h3")).to_have_text("The model could not be asked")
    review.model.refuses = ""
    page.get_by_role("button", name="Re-test", exact=True).click()
    expect(page.locator(".retest h3").first).to_have_text("The answer changes without it", timeout=30_000)
    expect(page.locator(".retest")).to_have_count(2)


def test_a_megabyte_of_hostile_answer_is_only_text(open_page: Open, read_only: Review) -> None:
    page = open_page(f"{read_only.url}/spex/cases/{read_only.hostile_case}")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main script, main img").count() == 0
    text = page.locator(".answer .text")
    for named in ("U+001B", "U+202E"):
        expect(text).to_contain_text(named)
    assert "\u202e" not in page.content()
    assert "\x1b" not in page.content()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    box = text.bounding_box()
    assert box is not None
    assert box["height"] < 900, "a frame of its own: the verdict stays near"
    expect(page.locator(".verdict")).to_be_visible()
    page.goto(f"{read_only.url}/spex/review")
    assert page.evaluate("window.pwned") is None


def test_an_exchange_is_sent_to_review(open_page: Open, own: Site, stories: Stories) -> None:
    page = open_page(f"{own.url}/spex/review")
    expect(page.get_by_role("heading", name="No case yet")).to_be_visible()
    page.goto(f"{own.url}/spex/exchanges/{stories.reliable}")
    page.get_by_role("button", name="Send to review").click()
    page.wait_for_url("**/spex/cases/*")
    expect(page.locator("#case .badge")).to_have_text("to be judged")
    page.goto(f"{own.url}/spex/exchanges/{stories.reliable}")
    expect(page.get_by_role("link", name="Case: to be judged")).to_be_visible()


def test_erased_content_can_still_be_judged(open_page: Open, own: Site, stories: Stories) -> None:
    with own.store.begin() as conn:
        case = cases.open_case(conn, stories.erased, why="person", who="ann")
    page = open_page(f"{own.url}/spex/cases/{case.id}")
    expect(page.get_by_role("heading", name="The content was erased")).to_be_visible()
    assert page.locator(".retest-form").count() == 0
    assert page.get_by_role("button", name="by word").count() == 0
    assert "person's name" not in page.content()
    expect(page.locator(".verdict")).to_be_visible()


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits(open_page: Open, read_only: Review, width: int) -> None:
    for path in ("review", f"cases/{read_only.case}", f"cases/{read_only.hostile_case}"):
        page = open_page(f"{read_only.url}/spex/{path}", viewport={"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_it_is_readable_without_scripts(open_page: Open, read_only: Review) -> None:
    page = open_page(f"{read_only.url}/spex/cases/{read_only.case}", java_script_enabled=False)
    expect(page.locator("#s7")).to_be_visible()
    expect(page.locator(".history li")).to_have_count(1)
    assert page.get_by_role("button", name="Claim").count() == 0
    assert "spex-proxy audit claim" in page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_on_any_page(
    open_page: Open, read_only: Review, shared: Site, stories: Stories, axe: str, scheme: str
) -> None:
    ours, theirs = f"{read_only.url}/spex", f"{shared.url}/spex"
    addresses = [
        f"{ours}/review", f"{ours}/review?state=done", f"{ours}/cases/{read_only.case}",
        f"{ours}/exchanges/{read_only.exchange_id}", f"{theirs}/", f"{theirs}/review",
        f"{theirs}/exchanges/{stories.unreliable}", f"{theirs}/exchanges/{stories.running}",
        f"{theirs}/exchanges/{stories.erased}", f"{theirs}/exchanges/{stories.hostile}",
    ]  # fmt: skip
    pages = {site: open_page(f"{site}/", color_scheme=scheme) for site in (ours, theirs)}
    for address in addresses:
        page = next(page for site, page in pages.items() if address.startswith(site))
        page.goto(address)
        for one in page.locator(".pair summary:visible").all()[:1]:
            one.click()
        found = violations(page, axe)
        assert not found, f"{address}\n{told(found)}"
