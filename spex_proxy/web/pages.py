"""The pages under /spex/: a list of exchanges, one exchange with its explanation, one file to mail.

Rendered here, without a script; scripts only add what moves (progress, links between text and bars,
buttons, which speak to the API). Handlers are synchronous and run in threads, as the store is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from jinja2 import FileSystemLoader
from sqlalchemy import Connection, Engine

from spex_proxy.facts.errors import BadEvidence, NotFound, SpexError, VerificationFailed
from spex_proxy.facts.query import STATES
from spex_proxy.store import cases, lookup
from spex_proxy.store.connect import StoreError, reading
from spex_proxy.store.listing import LIVE, Page, list_exchanges, models
from spex_proxy.study.html import make_environment, standalone
from spex_proxy.study.report import load_cases, load_retests
from spex_proxy.study.sheet import make_sheet
from spex_proxy.study.stored import load_sheet, load_table
from spex_proxy.study.text import label, pieces
from spex_proxy.web import forms
from spex_proxy.web.assets import PAGE_HEADERS, Assets
from spex_proxy.web.desk import ENDED, load_desk, load_progress
from spex_proxy.web.query_pages import ORIGIN_WORDS, QueryPages

PREFIX = "/spex"
ROWS = 40
"""Exchanges on a page of the list."""

Result = TypeVar("Result")
log = logging.getLogger(__name__)


def make_pages(
    store: Callable[[], Engine], project: str, *, relay: str = "http://127.0.0.1:8080", version: str = ""
) -> tuple[APIRouter, Pages]:
    """All pages but the reviewer's, and what those share with them. `store` opens the store or raises; `relay` is
    the address that apps use, for the first steps."""
    pages = Pages(store, project, relay, version)
    router = APIRouter(prefix=PREFIX, route_class=pages.route_class(), include_in_schema=False)
    router.add_api_route("", pages.home, methods=["GET"])
    router.add_api_route("/", pages.listing, methods=["GET"])
    router.add_api_route("/find", pages.find, methods=["GET"])
    questions = QueryPages(pages.read, pages.show, project)
    router.add_api_route("/dashboard", questions.dashboard, methods=["GET"])
    router.add_api_route("/compare", questions.compare, methods=["GET"])
    router.add_api_route("/exchanges/{any_id}", pages.exchange, methods=["GET"])
    router.add_api_route("/exchanges/{any_id}/job", pages.job, methods=["GET"])
    router.add_api_route("/explanations/{any_id}", pages.exchange, methods=["GET"])
    router.add_api_route("/explanations/{any_id}/table", pages.table, methods=["GET"])
    router.add_api_route("/explanations/{any_id}/page.html", pages.download, methods=["GET"])
    router.add_api_route("/static/{version}/{name}", pages.static, methods=["GET"])
    return router, pages


class Pages:
    """The handlers, and what they share."""

    def __init__(self, store: Callable[[], Engine], project: str, relay: str, version: str) -> None:
        self._store, self.project = store, project
        self._assets = Assets.load()
        self._templates = make_environment(FileSystemLoader(Path(__file__).parent / "templates"))
        self._templates.globals.update(
            static=f"{PREFIX}/static/{self._assets.version}",
            project=project,
            relay=relay,
            version=version,
            label=label,
            pieces=pieces,
            origin_words=ORIGIN_WORDS,
            ENDED=ENDED,
        )

    def home(self) -> Response:
        return _see(f"{PREFIX}/")

    def listing(self, request: Request) -> Response:
        asked = {name: value for name, value in request.query_params.items() if value}
        query, trouble = forms.understood(asked, "exchanges", datetime.now(UTC))
        try:
            page, known = self.read(
                lambda conn: (
                    list_exchanges(conn, self.project, query, cursor=asked.get("cursor"), limit=ROWS)
                    if not trouble
                    else Page((), None),
                    models(conn, self.project),
                )
            )
        except ValueError:  # a cursor of another version, or made up: begin again
            return _see(f"{PREFIX}/")
        kept = {name: value for name, value in asked.items() if name in forms.NAMES}
        return self.show(
            "list.html",
            page=page,
            models=known,
            states=STATES,
            ranges=forms.RANGES,
            asked=kept,
            trouble=trouble,
            is_first=not asked.get("cursor"),
            live=LIVE,
            older=f"?{urlencode({**kept, 'cursor': page.next_cursor})}" if page.next_cursor else "",
            is_cut=page.next_cursor is not None and len(page.rows) < ROWS,
            newest=f"?{urlencode(kept)}" if kept else f"{PREFIX}/",
        )

    def find(self, request: Request) -> Response:
        text = request.query_params.get("id", "").strip()
        if not text:
            return _see(f"{PREFIX}/")
        try:
            found = self.read(lookup.find, text, self.project)
        except NotFound:
            case_id = self.read(_case_of, text, self.project)
            if case_id is None:
                raise
            return _see(f"{PREFIX}/cases/{quote(case_id, safe='')}")
        if found.exchange_id is None or found.found_by == "explanation":
            return _see(f"{PREFIX}/explanations/{quote(found.explanation_ids[0], safe='')}")
        return _see(f"{PREFIX}/exchanges/{quote(found.exchange_id, safe='')}")

    def exchange(self, any_id: str) -> Response:
        desk = self.read(load_desk, any_id, self.project)
        row = desk.exchange.row if desk.exchange else None
        again = self.read(load_retests, desk.sheet, self.project) if desk.sheet else ()
        known = self.read(load_cases, row.exchange_id, self.project) if row else ()
        return self.show("exchange.html", desk=desk, sheet=desk.sheet, row=row, retests=again, cases=known)

    def job(self, any_id: str) -> Response:
        """The card of the newest job alone: what the page puts in place of the old one."""
        return self.show("job.html", progress=self.read(load_progress, any_id, self.project))

    def table(self, request: Request, any_id: str) -> Response:
        """The 2^k table of chosen segments alone: `?players=2,5`, counted from 1."""
        try:
            players = [int(part) - 1 for part in request.query_params.get("players", "").split(",")]
            told, table = self.read(load_table, any_id, players, self.project)
        except ValueError as error:
            return self.show("fault.html", 422, title="No such table", message=str(error))
        sheet = make_sheet(told.explanation, told.game, told.exchange, None)
        return self.show("table.html", sheet=sheet, table=table)

    def download(self, any_id: str) -> Response:
        sheet, _ = self.read(load_sheet, any_id, self.project)
        name = f"explanation-{sheet.explanation.id[:12]}.html"
        # the file brings a policy of its own, by the digests of what stands inside it
        headers = {
            **PAGE_HEADERS,
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": "sandbox allow-scripts",
        }
        return Response(standalone(sheet), 200, headers, media_type="text/html; charset=utf-8")

    def static(self, request: Request, version: str, name: str) -> Response:
        return self._assets.respond(request, version, name)

    def fault(self, status: int, title: str, message: str) -> Response:
        return self.show("fault.html", status, title=title, message=message)

    def read(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        with reading(self._store()) as connection:
            return function(connection, *arguments, **options)

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        html = self._templates.get_template(template).render(values)
        return Response(html, status, PAGE_HEADERS, media_type="text/html; charset=utf-8")

    def route_class(self) -> type[APIRoute]:
        """Routes whose errors are pages, for people."""
        pages = self

        class PageRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handle = super().get_route_handler()

                async def guarded(request: Request) -> Response:
                    try:
                        return await handle(request)
                    except (SpexError, StoreError) as error:
                        return pages.fault(*said(error))

                return guarded

        return PageRoute


def said(error: Exception) -> tuple[int, str, str]:
    """Status, headline and words for an error of ours."""
    if isinstance(error, NotFound):
        return 404, "Nothing found", str(error)
    if isinstance(error, VerificationFailed | BadEvidence):
        return 409, "The stored evidence is damaged", str(error)
    log.warning("a page can't be shown: %s", type(error).__name__)
    # not the text of a database's error: it quotes the statement with its parameters
    reason = str(error) if isinstance(error, SpexError) else type(error).__name__
    return 503, "The store can’t be read now", f"Production is not affected. Reason: {reason}"


def _case_of(conn: Connection, text: str, project: str) -> str | None:
    try:
        return cases.find_case(conn, text, project=project) if len(text) >= lookup.MIN_PREFIX else None
    except NotFound:
        return None


def _see(address: str) -> Response:
    return Response(status_code=303, headers={**PAGE_HEADERS, "Location": address})
