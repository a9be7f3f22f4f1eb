"""What can be checked of an explanation: the table of chosen segments, and the model asked again without some.

One report of all of it, as a file, is here too.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from spex_proxy.facts.records import CoalitionTable, RetestList, RetestRecord
from spex_proxy.facts.retest import MOST_REMOVED
from spex_proxy.flows.fill_table import AskedTable, ask_table, latest
from spex_proxy.flows.retest import AskedRetest, ask_retest, top
from spex_proxy.store import browse, retests
from spex_proxy.store.outbox import Job
from spex_proxy.store.retests import RetestStory
from spex_proxy.study.coalitions import MOST_PLAYERS, Table
from spex_proxy.study.html import report_page
from spex_proxy.study.report import load_report
from spex_proxy.study.stored import load_table
from spex_proxy.web import examples, replies
from spex_proxy.web.doors import AnyId, Doors, Number, Project
from spex_proxy.web.errors import Refused, documented

HTML_TYPE = "text/html"
RetestId = Annotated[str, Path(description="The re-test's id, whole.", min_length=1, max_length=200)]
_SEGMENT = Annotated[int, Field(ge=1, le=2**31), Number]
Chosen = Annotated[
    list[Annotated[int, Field(ge=1, le=2**31)]] | None,
    Query(
        description="Chosen segments, from 1; repeat it for each. Without any, the strongest that act together.",
        min_length=1,
        max_length=MOST_PLAYERS,
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class TableRequest(_Body):
    """Whose table is to be measured."""

    segments: list[_SEGMENT] = Field(min_length=1, max_length=MOST_PLAYERS)
    """Chosen segments, from 1."""


class RetestRequest(_Body):
    """What to leave out: `segments`, or the `top` ones. One of the two."""

    who: str = Field(min_length=1, max_length=200)
    """Who asks, as the caller names them."""
    segments: list[_SEGMENT] | None = Field(default=None, min_length=1, max_length=MOST_REMOVED)
    """These segments, from 1."""
    top: Annotated[int, Field(ge=1, le=MOST_REMOVED), Number] | None = None
    """So many of those that made the answer likelier, the strongest first."""


def make_router(doors: Doors) -> APIRouter:
    router = APIRouter(tags=["checks"])
    _add_tables(router, doors)
    _add_retests(router, doors)
    _add_report(router, doors)
    return router


def _add_tables(router: APIRouter, doors: Doors) -> None:
    errors = documented(400, 404, 409, 422)

    @router.get("/explanations/{any_id}/coalitions", responses={200: examples.COALITIONS, **errors})
    def coalitions(any_id: AnyId, segment: Chosen = None, project: Project = None) -> CoalitionTable:
        """The 2^k table of chosen segments: the answer's value with none of them, with each, with all. Lines that
        were measured say so; the others are what the fitted spectrum predicts."""
        return _table(doors, any_id, segment, project or doors.project)

    asked: dict[int | str, dict[str, Any]] = {
        200: {**examples.COALITIONS, "description": "Nothing is missing, or it is being asked already."},
        202: {**examples.COALITIONS, "model": CoalitionTable, "description": "A job asks what is missing."},
    }

    @router.post("/explanations/{any_id}/coalitions", responses={**asked, **errors})
    def ask_coalitions(
        response: Response, any_id: AnyId, given: Annotated[TableRequest, Body()], project: Project = None
    ) -> CoalitionTable:
        """Measure the lines that are only predicted. `job` is the one that does; the values become evidence of the
        explanation's game, and are never asked twice."""
        chosen = project or doors.project
        explanation_id = doors.read(browse.story, any_id, chosen).explanation.id
        found: AskedTable = _sensible(
            lambda: doors.write(ask_table, explanation_id, _players(given.segments), project=chosen)
        )
        response.status_code = 202 if found.is_new else 200
        return _table(doors, explanation_id, given.segments, chosen)


def _add_retests(router: APIRouter, doors: Doors) -> None:
    errors = documented(400, 404, 409, 422)
    asked: dict[int | str, dict[str, Any]] = {
        200: {**examples.RETEST, "model": RetestRecord, "description": "The same is being asked already."},
        202: {**examples.RETEST, "headers": {"Location": {"schema": {"type": "string"}, "description": "Of it."}}},
    }

    @router.post("/explanations/{any_id}/retest", status_code=202, responses={**asked, **errors})
    def retest(
        response: Response, any_id: AnyId, given: Annotated[RetestRequest, Body()], project: Project = None
    ) -> RetestRecord:
        """Ask the model again without some segments, at temperature 0, beside the whole prompt as the control.
        A job does it, before all that was sampled."""
        chosen = project or doors.project
        if (given.segments is None) == (given.top is None):
            raise Refused(422, "invalid_request", "say either `segments` or `top`", "body")
        explanation = doors.read(browse.story, any_id, chosen).explanation
        players = _players(given.segments) if given.segments else top(explanation, given.top or 1)
        found: AskedRetest = _sensible(
            lambda: doors.write(ask_retest, explanation.id, players, who=given.who, project=chosen)
        )
        response.status_code = 202 if found.is_new else 200
        response.headers["Location"] = f"../../retests/{found.retest.id}"
        return replies.retest_record(doors.read(retests.story, found.retest.id, project=chosen))

    @router.get("/retests/{retest_id}", responses={200: examples.RETEST, **documented(404, 409, 422)})
    def one(retest_id: RetestId, project: Project = None) -> RetestRecord:
        """One re-test, and what came of it."""
        return replies.retest_record(doors.read(retests.story, retest_id, project=project or doors.project))

    @router.get("/exchanges/{any_id}/retests", responses={200: examples.RETESTS, **errors})
    def of_exchange(any_id: AnyId, project: Project = None) -> RetestList:
        """All re-tests of an exchange, newest first."""
        stories = doors.read(_of_exchange, any_id, project or doors.project)
        return RetestList(tuple(replies.retest_record(story) for story in stories))


def _add_report(router: APIRouter, doors: Doors) -> None:
    page = {"content": {HTML_TYPE: {"schema": {"type": "string"}}}, "description": "One page that needs no other file."}

    @router.get(
        "/exchanges/{any_id}/report.html",
        responses={200: page, **documented(400, 404, 409, 422)},
        response_class=Response,
    )
    def report(any_id: AnyId, project: Project = None) -> Response:
        """The whole case as one file to mail: what was asked and answered, why, how far that can be trusted, what
        the model says without the cause, what reviewers said, and how to verify it."""
        found = doors.read(load_report, any_id, project or doors.project)
        headers = {
            "Content-Disposition": f'attachment; filename="report-{found.exchange_id[:13]}.html"',
            "Content-Security-Policy": "sandbox allow-scripts",
            "Cache-Control": "no-store",
        }
        return Response(report_page(found), media_type=HTML_TYPE, headers=headers)


def _table(doors: Doors, any_id: str, segments: list[int] | None, project: str) -> CoalitionTable:
    explanation_id, table, job = _sensible(lambda: doors.read(_load_table, any_id, _players(segments or []), project))
    return replies.coalition_table(explanation_id, table, job)


def _load_table(conn: Connection, any_id: str, players: tuple[int, ...], project: str) -> tuple[str, Table, Job | None]:
    told, table = load_table(conn, any_id, players or strongest(conn, any_id, project), project)
    task = {"explanation_id": told.explanation.id, "players": list(table.players)}
    exchange_id = told.explanation.exchange_id
    return told.explanation.id, table, latest(conn, exchange_id, task, project) if exchange_id else None


def strongest(conn: Connection, any_id: str, project: str) -> tuple[int, ...]:
    """The players of the strongest interaction that fits a table; without one, the first player."""
    terms = browse.story(conn, any_id, project).explanation.interactions
    return next((term.players for term in terms if 2 <= term.order <= MOST_PLAYERS), (0,))


def _of_exchange(conn: Connection, any_id: str, project: str) -> tuple[RetestStory, ...]:
    return retests.stories(conn, browse.exchange_story(conn, any_id, project).row.exchange_id, project=project)


def _players(segments: list[int]) -> tuple[int, ...]:
    return tuple(number - 1 for number in segments)


def _sensible(action: Any) -> Any:
    """Players that make no sense are the caller's slip: 422, naming them."""
    try:
        return action()
    except ValueError as error:
        raise Refused(422, "invalid_request", str(error), "segments") from error
