"""Flags from outside: what users say of an answer, what guardrails find in it. Who sends one, the caller says."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.explanation import Flag
from spex_proxy.facts.records import RaisedList, RaisedRecord
from spex_proxy.flows.outside_flags import Sent, feedback_flag, flag_from_outside
from spex_proxy.store import flags
from spex_proxy.store.lookup import find
from spex_proxy.web import examples, replies
from spex_proxy.web.doors import AnyId, Doors, IdempotencyKey, Number, Project
from spex_proxy.web.errors import documented

_NAME = r"^[A-Za-z0-9_.-]+$"
Score = Annotated[float, Field(ge=-1e9, le=1e9), Number]
Who = Field(min_length=1, max_length=200, description="Whoever sends it, as they call themselves.")


class FeedbackRequest(BaseModel):
    """What a user says of an answer: a label, a score or a comment, at least one of them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    who: str = Who
    label: str | None = Field(default=None, min_length=1, max_length=100, pattern=_NAME)
    """One word, `bad`: it becomes the flag `feedback:bad`."""
    score: Score | None = None
    comment: str | None = Field(default=None, min_length=1, max_length=1_000)
    """Kept as it is: erasing the exchange's content leaves it."""

    @model_validator(mode="after")
    def _says_something(self) -> FeedbackRequest:
        if self.label is None and self.score is None and self.comment is None:
            raise ValueError("say something: a label, a score or a comment")
        return self


class FlagRequest(BaseModel):
    """What a guardrail found."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    who: str = Who
    name: str = Field(min_length=1, max_length=100, pattern=_NAME)
    """Of the flag: one word."""
    detail: str = Field(default="", max_length=1_000)
    """For people. Kept as it is: erasing the exchange's content leaves it."""
    score: Score | None = None


def make_router(doors: Doors) -> APIRouter:
    router = APIRouter(tags=["flags"])
    responses: dict[int | str, dict[str, Any]] = {
        200: {**examples.FLAG, "model": RaisedRecord, "description": "It was sent before: this is it, unchanged."},
        201: examples.FLAG,
        **documented(400, 404, 409, 422),
    }

    def send(
        response: Response, any_id: str, flag: Flag, who: str, key: str | None, project: str | None
    ) -> RaisedRecord:
        sent: Sent = doors.write(
            flag_from_outside, any_id, flag, who=who, key=key, project=project or doors.project, orders=doors.orders
        )
        response.status_code = 201 if sent.is_new else 200
        return replies.raised_record(sent.raised)

    @router.post("/exchanges/{any_id}/feedback", status_code=201, responses=responses)
    def feedback(
        response: Response,
        any_id: AnyId,
        given: Annotated[FeedbackRequest, Body()],
        project: Project = None,
        idempotency_key: IdempotencyKey = None,
    ) -> RaisedRecord:
        """Say what a user thinks of an answer. Of one sender, each label counts once, unless a key tells them apart."""
        flag = feedback_flag(given.label, given.score, given.comment)
        return send(response, any_id, flag, given.who, idempotency_key, project)

    @router.post("/exchanges/{any_id}/flags", status_code=201, responses=responses)
    def flag(
        response: Response,
        any_id: AnyId,
        given: Annotated[FlagRequest, Body()],
        project: Project = None,
        idempotency_key: IdempotencyKey = None,
    ) -> RaisedRecord:
        """Flag an exchange. Of one sender, each name counts once, unless a key tells them apart."""
        made = Flag(given.name, given.detail or given.name, given.score, given.who)
        return send(response, any_id, made, given.who, idempotency_key, project)

    @router.get("/exchanges/{any_id}/flags", responses={200: examples.FLAGS, **documented(404, 409, 422)})
    def of_exchange(any_id: AnyId, project: Project = None) -> RaisedList:
        """All flags of an exchange and of its explanations."""
        chosen = project or doors.project
        exchange_id = doors.read(find, any_id, chosen).exchange_id
        if exchange_id is None:
            raise NotFound(f"{any_id} is an explanation that belongs to no exchange")
        raised = doors.read(flags.of_exchange, exchange_id, project=chosen)
        return RaisedList(tuple(map(replies.raised_record, raised)))

    return router
