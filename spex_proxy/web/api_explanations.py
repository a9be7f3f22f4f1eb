"""Explanations: list, get, their evidence, and whether they follow from it."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi import Query as Parameter
from sqlalchemy import Connection

from spex_proxy.facts.query import Query
from spex_proxy.facts.records import EvidenceRecord, ExplanationPage, ExplanationRecord, VerificationRecord
from spex_proxy.store import browse
from spex_proxy.store.browse_explanations import Measured, list_explanations, measured
from spex_proxy.web import downloads, examples, replies
from spex_proxy.web.doors import AnyId, Cursor, Doors, Limit, Project
from spex_proxy.web.errors import Refused, documented
from spex_proxy.web.filters import filters_of, with_whole_id

MOST_VERIFYING = 2
"""At once: each keeps a core busy for seconds."""


def make_router(doors: Doors) -> APIRouter:
    router = APIRouter(tags=["explanations"])
    _add_reads(router, doors)
    _add_evidence(router, doors)
    _add_verify(router, doors)
    return router


def _add_reads(router: APIRouter, doors: Doors) -> None:
    @router.get("/explanations", responses={200: examples.EXPLANATION_PAGE, **documented(400, 404, 422)})
    def explanations(
        filters: Annotated[Query, Depends(filters_of("explanations"))],
        limit: Limit = 50,
        cursor: Cursor = None,
        project: Project = None,
    ) -> ExplanationPage:
        """Explanations, newest first. Following `next_cursor` gives each row once, whatever is made meanwhile."""
        chosen = project or doors.project
        whole = doors.read(with_whole_id, filters, chosen)
        page = doors.read(list_explanations, chosen, whole, cursor=cursor, limit=limit)
        return ExplanationPage(tuple(replies.explanation_row(line) for line in page.lines), page.next_cursor)

    @router.get("/explanations/{any_id}", responses={200: examples.EXPLANATION, **documented(400, 404, 409, 422)})
    def explanation(
        any_id: AnyId,
        terms: Annotated[bool, Parameter(description="Give the whole spectrum, not only the strongest terms.")] = False,
        project: Project = None,
    ) -> ExplanationRecord:
        """Why an answer came out: segments with their effects, what acts together, and how far to trust it."""
        return replies.explanation_record(doors.read(browse.story, any_id, project or doors.project), terms=terms)


def _add_evidence(router: APIRouter, doors: Doors) -> None:
    errors = documented(400, 404, 409, 422)

    def found(any_id: str, project: str | None) -> tuple[str, tuple[Measured, ...]]:
        return doors.read(_evidence, any_id, project or doors.project)

    @router.get("/explanations/{any_id}/evidence", responses={200: examples.EVIDENCE, **errors})
    def evidence(any_id: AnyId, project: Project = None) -> EvidenceRecord:
        """Every mask that was asked and what it was worth. Fit anything you like to it."""
        return replies.evidence_record(*found(any_id, project))

    table = {
        200: {"content": {downloads.CSV_TYPE: {"schema": {"type": "string"}}}, "description": "A table."},
        **errors,
    }

    @router.get("/explanations/{any_id}/evidence.csv", responses=table, response_class=Response)
    def evidence_csv(any_id: AnyId, project: Project = None) -> Response:
        """The same as a table: game, block, replicate, mask, value."""
        explanation_id, games = found(any_id, project)
        text = downloads.as_csv(replies.evidence_record(explanation_id, games))
        return _file(text.encode(), downloads.CSV_TYPE, f"{explanation_id}.csv")

    binary = {"schema": {"type": "string", "format": "binary"}}
    arrays = {200: {"content": {downloads.NPZ_TYPE: binary}, "description": "For numpy.load."}, **errors}

    @router.get("/explanations/{any_id}/evidence.npz", responses=arrays, response_class=Response)
    def evidence_npz(any_id: AnyId, project: Project = None) -> Response:
        """The same for numpy, with the log-probability of each token: `masks_0`, `values_0`, `logprobs_0`, ..."""
        explanation_id, games = found(any_id, project)
        return _file(downloads.as_npz(games), downloads.NPZ_TYPE, f"{explanation_id}.npz")


def _add_verify(router: APIRouter, doors: Doors) -> None:
    turns = BoundedSemaphore(MOST_VERIFYING)
    responses: dict[int | str, dict[str, Any]] = {200: examples.VERIFICATION, **documented(400, 404, 409, 422, 429)}

    @router.post("/explanations/{any_id}/verify", responses=responses)
    def verify(any_id: AnyId, project: Project = None) -> VerificationRecord:
        """Check it against its stored evidence: no GPU, no network. Takes seconds."""
        chosen = project or doors.project
        explanation_id = doors.read(browse.story, any_id, chosen).explanation.id
        if not turns.acquire(blocking=False):
            raise Refused(429, "busy", f"{MOST_VERIFYING} explanations are being verified: try again later")
        try:
            return replies.verification_record(explanation_id, doors.verify(explanation_id, chosen))
        finally:
            turns.release()


def _evidence(conn: Connection, any_id: str, project: str) -> tuple[str, tuple[Measured, ...]]:
    explanation = browse.story(conn, any_id, project).explanation
    return explanation.id, measured(conn, explanation)


def _file(body: bytes, media_type: str, name: str) -> Response:
    return Response(body, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})
