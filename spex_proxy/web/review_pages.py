"""The reviewer's pages under /spex/review: the queue, and one case with all that there is to judge it by.

What a reviewer does here (claim, judge, ask again) goes through the JSON API, by small scripts.
"""

from __future__ import annotations

from typing import Any, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from spex_proxy.facts.review import CaseState
from spex_proxy.store.cases import CaseFilters
from spex_proxy.study.html import report_page
from spex_proxy.study.report import load_report
from spex_proxy.web.api_cases import cursor_of, place_of
from spex_proxy.web.assets import PAGE_HEADERS
from spex_proxy.web.case_desk import load_case_desk, load_queue, load_retest_cards
from spex_proxy.web.pages import PREFIX, ROWS, Pages

REVIEW = f"{PREFIX}/review"
STATES: dict[str, tuple[CaseState, ...]] = {
    "": ("open", "claimed"), "all": get_args(CaseState), "open": ("open",), "claimed": ("claimed",), "done": ("done",)
}  # fmt: skip
"""What the form says -> which cases. Without a word from it: those that are still to be judged."""
_ASKED = ("queue", "state", "holder", "label")


def add_review_pages(router: APIRouter, pages: Pages, labels: tuple[str, ...]) -> None:
    """The routes, on the router of all pages."""
    review = ReviewPages(pages, labels)
    router.add_api_route("/review", review.queue, methods=["GET"])
    router.add_api_route("/cases/{case_id}", review.case, methods=["GET"])
    router.add_api_route("/explanations/{any_id}/retests", review.retests, methods=["GET"])
    router.add_api_route("/exchanges/{any_id}/report.html", review.report, methods=["GET"])


class ReviewPages:
    """The handlers."""

    def __init__(self, pages: Pages, labels: tuple[str, ...]) -> None:
        self._pages, self._labels = pages, labels

    def queue(self, request: Request) -> Response:
        asked = {name: request.query_params[name] for name in _ASKED if request.query_params.get(name)}
        states = STATES.get(asked.get("state", ""), STATES[""])
        filters = CaseFilters(asked.get("queue"), states, asked.get("holder"), asked.get("label"))
        try:
            cursor = request.query_params.get("cursor")
            after: Any = place_of(cursor) if cursor else None
        except ValueError:  # of another version, or made up: begin again
            after = None
        page = self._pages.read(load_queue, filters, after, ROWS, self._pages.project)
        following = cursor_of(page.next_after)
        return self._pages.show(
            "review.html",
            page=page,
            asked=asked,
            labels=self._labels,
            is_first=after is None,
            more=f"?{urlencode({**asked, 'cursor': following})}" if following else "",
            first=f"?{urlencode(asked)}" if asked else REVIEW,
        )

    def case(self, request: Request, case_id: str) -> Response:
        level = request.query_params.get("level") or None
        found = self._pages.read(load_case_desk, case_id, level, self._pages.project)
        return self._pages.show("case.html", found=found, desk=found.desk, sheet=found.desk.sheet, labels=self._labels)

    def retests(self, any_id: str) -> Response:
        """The cards alone: what the page puts in place of the old ones."""
        cards = self._pages.read(load_retest_cards, any_id, self._pages.project)
        return self._pages.show("retests.html", retests=cards)

    def report(self, any_id: str) -> Response:
        found = self._pages.read(load_report, any_id, self._pages.project)
        # the file brings a policy of its own, by the digests of what stands inside it
        headers = {
            **PAGE_HEADERS,
            "Content-Disposition": f'attachment; filename="report-{found.exchange_id[:13]}.html"',
            "Content-Security-Policy": "sandbox allow-scripts",
        }
        return Response(report_page(found), 200, headers, media_type="text/html; charset=utf-8")
