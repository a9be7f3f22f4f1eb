"""Review: queues of cases, who holds one, and what was said about it.

Who a reviewer is, the caller says: the second port asks nobody who they are.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from spex_proxy.facts.records import CasePage, CaseRecord, CaseStory, ReviewRecord
from spex_proxy.facts.review import MOST_CHARACTERS, Case, CaseState, Refusal, Wish
from spex_proxy.store import cases
from spex_proxy.store.cases import USUAL_QUEUE, CaseFilters
from spex_proxy.store.listing import decode_cursor, encode_cursor
from spex_proxy.store.lookup import find
from spex_proxy.web import examples, replies
from spex_proxy.web.doors import AnyId, Doors, Limit, Number, Project
from spex_proxy.web.errors import Refused, documented

PERSON = "person"
"""Why a case is there that no flag raised."""


def _cursor(value: str) -> str:
    place_of(value)  # ValueError is answered 422, and names the parameter
    return value


CaseId = Annotated[str, Path(description="The case's id, whole.", min_length=1, max_length=200)]
CaseCursor = Annotated[
    Annotated[str, AfterValidator(_cursor)] | None,
    Query(
        description="`next_cursor` of the page before; the filters stay the same.",
        min_length=1,
        max_length=400,
        examples=[examples.CASE_CURSOR],
    ),
]
Who = Field(min_length=1, max_length=200, description="The reviewer, as the caller names them.")
Note = Field(default=None, min_length=1, max_length=MOST_CHARACTERS, description="For whoever reads the history.")
Queue = Field(default=USUAL_QUEUE, min_length=1, max_length=200, description="Name of the queue.")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class OpenRequest(_Body):
    """Put an exchange into a queue."""

    who: str = Who
    queue: str = Queue
    note: str | None = Note
    priority: Annotated[int, Field(ge=1, le=9), Number] = 2
    """1 is the most urgent."""


class NextRequest(_Body):
    """Claim the next case of a queue."""

    who: str = Who
    queue: str = Queue


class WishRequest(_Body):
    """Who wishes it, and why."""

    who: str = Who
    note: str | None = Note


class ClaimRequest(_Body):
    """Who wishes it."""

    who: str = Who


class NoteRequest(_Body):
    """A line for the history."""

    who: str = Who
    note: str = Field(min_length=1, max_length=MOST_CHARACTERS, description="What there is to say.")


class VerdictRequest(WishRequest):
    """What was found."""

    label: str = Field(min_length=1, max_length=200, description="One of the labels of `GET /review`.")


def make_router(doors: Doors) -> APIRouter:
    router = APIRouter(tags=["review"])
    _add_reads(router, doors)
    _add_opening(router, doors)
    _add_wishes(router, doors)
    return router


def _add_reads(router: APIRouter, doors: Doors) -> None:
    @router.get("/review", responses={200: examples.REVIEW, **documented(422)})
    def review(project: Project = None) -> ReviewRecord:
        """The queues that have cases, and what a verdict may be."""
        lines = doors.read(cases.queues, project or doors.project)
        return replies.review_record(lines, doors.labels)

    @router.get("/cases", responses={200: examples.CASE_PAGE, **documented(404, 409, 422)})
    def list_cases(
        queue: Annotated[str | None, Query(description="Of this queue.", min_length=1, max_length=200)] = None,
        state: Annotated[list[CaseState] | None, Query(description="One of these; may be repeated.")] = None,
        holder: Annotated[str | None, Query(description="Claimed by.", min_length=1, max_length=200)] = None,
        label: Annotated[str | None, Query(description="With this verdict.", min_length=1, max_length=200)] = None,
        exchange: Annotated[str | None, Query(description="Of it; any id.", min_length=1, max_length=200)] = None,
        limit: Limit = 50,
        cursor: CaseCursor = None,
        project: Project = None,
    ) -> CasePage:
        """Cases, the most urgent first, then the oldest."""
        chosen = project or doors.project
        exchange_id = doors.read(find, exchange, chosen).exchange_id if exchange else None
        filters = CaseFilters(queue, tuple(state or ()), holder, label, exchange_id)
        after = place_of(cursor) if cursor else None
        page = doors.read(cases.list_cases, chosen, filters, after=after, limit=limit)
        return CasePage(tuple(replies.case_record(case) for case in page.cases), cursor_of(page.next_after))

    @router.get("/cases/{case_id}", responses={200: examples.CASE_STORY, **documented(404, 422)})
    def case(case_id: CaseId, project: Project = None) -> CaseStory:
        """One case, and all that happened to it."""
        return replies.case_story(*doors.read(_story, case_id, project or doors.project))


def _add_opening(router: APIRouter, doors: Doors) -> None:
    responses: dict[int | str, dict[str, Any]] = {200: examples.CASE, **documented(400, 404, 409, 422)}

    @router.post("/exchanges/{any_id}/case", responses=responses)
    def open_case(any_id: AnyId, given: Annotated[OpenRequest, Body()], project: Project = None) -> CaseRecord:
        """Put an exchange into a queue. If it is there already, that case is the answer, unchanged."""
        chosen = project or doors.project
        exchange_id = doors.read(find, any_id, chosen).exchange_id
        if exchange_id is None:
            raise Refused(409, "conflict", f"{any_id} is an explanation that belongs to no exchange")
        case = doors.write(
            cases.open_case, exchange_id, why=PERSON, who=given.who, queue=given.queue, note=given.note,
            priority=given.priority, project=chosen,
        )  # fmt: skip
        return replies.case_record(case)

    @router.post("/review/next", responses=responses)
    def claim_next(given: Annotated[NextRequest, Body()], project: Project = None) -> CaseRecord:
        """Claim the most urgent case that nobody holds. 404 if there is none."""
        case = doors.write(
            cases.claim_next, given.who, queue=given.queue, hold=doors.hold, project=project or doors.project
        )
        if case is None:
            raise Refused(404, "not_found", f"queue {given.queue!r} has no case that nobody holds")
        return replies.case_record(case)


def _add_wishes(router: APIRouter, doors: Doors) -> None:
    responses: dict[int | str, dict[str, Any]] = {200: examples.CASE, **documented(400, 404, 409, 422)}

    def act(
        case_id: str, wish: Wish, who: str, project: str | None, *, note: str | None = None, label: str | None = None
    ) -> CaseRecord:
        found: Case | Refusal = doors.write(
            cases.act, case_id, wish, who, note=note, label=label, hold=doors.hold, project=project or doors.project
        )
        if isinstance(found, Refusal):
            raise Refused(409, "conflict", found.reason)
        return replies.case_record(found)

    @router.post("/cases/{case_id}/claim", responses=responses)
    def claim(case_id: CaseId, given: Annotated[ClaimRequest, Body()], project: Project = None) -> CaseRecord:
        """Make it this reviewer's for a while; again, to hold it longer. 409 says who has it."""
        return act(case_id, "claim", given.who, project)

    @router.post("/cases/{case_id}/release", responses=responses)
    def release(case_id: CaseId, given: Annotated[ClaimRequest, Body()], project: Project = None) -> CaseRecord:
        """Give it back to the queue."""
        return act(case_id, "release", given.who, project)

    @router.post("/cases/{case_id}/verdict", responses=responses)
    def verdict(case_id: CaseId, given: Annotated[VerdictRequest, Body()], project: Project = None) -> CaseRecord:
        """Judge a case that this reviewer has claimed, and close it."""
        if given.label not in doors.labels:
            known = ", ".join(doors.labels)
            raise Refused(409, "conflict", f"no label is {given.label!r}; there is {known}", "body.label")
        return act(case_id, "judge", given.who, project, note=given.note, label=given.label)

    @router.post("/cases/{case_id}/note", responses=responses)
    def note(case_id: CaseId, given: Annotated[NoteRequest, Body()], project: Project = None) -> CaseRecord:
        """Add a line to its history, whoever holds it."""
        return act(case_id, "note", given.who, project, note=given.note)

    @router.post("/cases/{case_id}/reopen", responses=responses)
    def reopen(case_id: CaseId, given: Annotated[WishRequest, Body()], project: Project = None) -> CaseRecord:
        """A closed case goes back to its queue. Its verdict stays in the history."""
        return act(case_id, "reopen", given.who, project, note=given.note)


def _story(conn: Connection, case_id: str, project: str) -> tuple[Case, Any]:
    return cases.load_case(conn, case_id, project=project), cases.history(conn, case_id, project=project)


def cursor_of(place: Any) -> str | None:
    """(priority, created_at, id) as one word for a URL."""
    return None if place is None else encode_cursor(place[1], f"{place[0]} {place[2]}")


def place_of(cursor: str) -> tuple[int, Any, str]:
    """Raises ValueError."""
    moment, rest = decode_cursor(cursor)
    priority, _, last = rest.partition(" ")
    if not priority.isdecimal() or len(priority) > 9 or not last:
        raise ValueError(f"{cursor[:40]!r} is no cursor of a list of cases; leave it out to begin at the top")
    return int(priority), moment, last
