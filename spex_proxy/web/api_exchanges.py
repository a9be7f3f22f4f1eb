"""Exchanges: list, get, explain now."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Response
from fastapi import Query as Parameter
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection

from spex_proxy.engine.decide import METHODS
from spex_proxy.facts.aim import QUOTE, Aim
from spex_proxy.facts.errors import CannotExplain, NotFound
from spex_proxy.facts.query import Query
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.records import ExchangePage, ExchangeRecord, JobRecord
from spex_proxy.flows.ask import Asked, ask
from spex_proxy.store.browse import exchange_story
from spex_proxy.store.browse_jobs import job_progress
from spex_proxy.store.exchanges import load_exchange
from spex_proxy.store.listing import list_exchanges
from spex_proxy.store.lookup import find
from spex_proxy.web import examples, replies
from spex_proxy.web.doors import AnyId, Cursor, Doors, IdempotencyKey, Limit, Number, Project
from spex_proxy.web.errors import Refused, documented
from spex_proxy.web.filters import filters_of
from spex_proxy.wire.aiming import spelled_for

MOST_BUDGET = 65_536


class TargetRequest(BaseModel):
    """Which part of the answer to explain. Nothing is asked of the model for it that has been measured already."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    kind: Literal["output", "first_token", "chars", "quote", "tool_call"]
    start: Annotated[int, Field(ge=0, le=999_999_999), Number] | None = None
    """Of `chars`: characters [start, end) of the answer's text."""
    end: Annotated[int, Field(ge=1, le=999_999_999), Number] | None = None
    text: str | None = Field(default=None, min_length=1, max_length=10_000)
    """Of `quote`: a text that stands in the answer once."""
    call: Annotated[int, Field(ge=1, le=9999), Number] = 1
    """Of `tool_call`: which, from 1."""
    part: Literal["call", "name", "arguments"] = "call"
    """Of `tool_call`."""

    @model_validator(mode="after")
    def _is_whole(self) -> TargetRequest:
        if self.kind == "quote" and self.text is None:
            raise ValueError("a quote needs its `text`")
        if self.kind == "chars" and (self.start is None or self.end is None or self.start >= self.end):
            raise ValueError("characters need `start` and a larger `end`")
        return self

    def __str__(self) -> str:
        if self.kind == "quote":
            return f"{QUOTE}{self.text}"
        return str(Aim(self.kind, self.start or 0, self.end or 0, self.call, self.part))


class ExplainRequest(BaseModel):
    """What to do differently from the server's settings. Nothing is required."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    segmenter: str | None = Field(default=None, min_length=1, max_length=100)
    """What the players are: `auto`, `message`, `sentence`, `word` or a plugin's."""
    masker: str | None = Field(default=None, min_length=1, max_length=100)
    """How a player is taken out of the prompt."""
    value: str | None = Field(default=None, min_length=1, max_length=100)
    """What is measured of the original answer."""
    method: str | None = Field(default=None, json_schema_extra={"enum": [*METHODS, None]})
    """How the spectrum is recovered from the masks."""
    budget: Annotated[int, Field(ge=8, le=MOST_BUDGET), Number] | None = None
    """Most masks to ask."""
    seed: Annotated[int, Field(ge=0, lt=2**31), Number] | None = None
    """Another seed asks other masks."""
    target_r2: Annotated[float, Field(ge=0.0, le=1.0), Number] | None = None
    """Stop when out-of-fold R2 surely reaches this."""
    replicates: Annotated[int, Field(ge=2, le=64), Number] | None = None
    """How often the full prompt is measured, for the noise."""
    max_scored_tokens: Annotated[int, Field(ge=1, le=4096), Number] | None = None
    """Only the first so many tokens of the answer are scored."""
    target: TargetRequest | None = None
    """A part of the answer instead of the whole."""


def make_router(doors: Doors) -> APIRouter:
    router = APIRouter(tags=["exchanges"])
    _add_reads(router, doors)
    _add_explain(router, doors)
    return router


def _add_reads(router: APIRouter, doors: Doors) -> None:
    @router.get("/exchanges", responses={200: examples.EXCHANGE_PAGE, **documented(400, 422)})
    def exchanges(
        filters: Annotated[Query, Depends(filters_of("exchanges"))],
        preview: Annotated[bool, Parameter(description="Show the answers' beginnings: reads content.")] = False,
        limit: Limit = 50,
        cursor: Cursor = None,
        project: Project = None,
    ) -> ExchangePage:
        """Captured requests, newest first. Following `next_cursor` gives each row once, whatever arrives meanwhile."""
        chosen = project or doors.project
        page = doors.read(list_exchanges, chosen, filters, cursor=cursor, limit=limit, with_answers=preview)
        rows = tuple(replies.exchange_row(row, chosen, preview=preview) for row in page.rows)
        return ExchangePage(rows, page.next_cursor)

    @router.get("/exchanges/{any_id}", responses={200: examples.EXCHANGE, **documented(404, 409, 422)})
    def exchange(any_id: AnyId, project: Project = None) -> ExchangeRecord:
        """One exchange with its messages and its answer."""
        chosen = project or doors.project
        return replies.exchange_record(doors.read(exchange_story, any_id, chosen), chosen)


def _add_explain(router: APIRouter, doors: Doors) -> None:
    responses: dict[int | str, dict[str, Any]] = {
        200: {**examples.JOB, "model": JobRecord, "description": "The same was asked before: this is its job."},
        202: {**examples.JOB, "headers": {"Location": {"schema": {"type": "string"}, "description": "Of the job."}}},
        **documented(400, 404, 409, 422),
    }

    @router.post("/exchanges/{any_id}/explain", status_code=202, responses=responses)
    def explain(
        response: Response,
        any_id: AnyId,
        project: Project = None,
        wish: Annotated[ExplainRequest | None, Body(openapi_examples=examples.WISHES)] = None,
        idempotency_key: IdempotencyKey = None,
    ) -> JobRecord:
        """Explain it now, before all that was sampled. Without a key, asking twice for the same gives one job
        for as long as it is not over. Readings that are stored already are not asked again."""
        chosen, recipe = project or doors.project, _recipe(doors, wish or ExplainRequest())
        exchange_id = doors.read(find, any_id, chosen).exchange_id
        if exchange_id is None:
            raise Refused(409, "cannot_explain", f"{any_id} is an explanation that belongs to no exchange")
        if wish is not None and wish.target is not None:
            recipe = dataclasses.replace(recipe, target=doors.read(_spelled, wish.target, exchange_id, chosen))
        asked: Asked = doors.write(ask, exchange_id, recipe, project=chosen, key=idempotency_key)
        if not asked.fits:
            raise Refused(409, "conflict", "this idempotency key was used before with another recipe: take a new one")
        response.status_code = 202 if asked.is_new else 200
        # relative to this request, so that it is right behind any proxy that moves the API elsewhere
        response.headers["Location"] = f"../../jobs/{asked.job_id}"
        return replies.job_record(doors.read(job_progress, asked.job_id, project=chosen))


def _spelled(conn: Connection, target: TargetRequest, exchange_id: str, project: str) -> str:
    """Raises CannotExplain if the answer has no such part, or no longer any content."""
    try:
        return spelled_for(str(target), load_exchange(conn, exchange_id, project=project))
    except NotFound as error:
        raise CannotExplain(f"there is nothing left to explain: {error}") from error


def _recipe(doors: Doors, wish: ExplainRequest) -> Recipe:
    """The server's recipe with what is wished for. A plugin that isn't there is refused now, not by the worker."""
    recipe = dataclasses.replace(doors.recipe, **wish.model_dump(exclude_none=True, exclude={"target"}))
    for kind in ("segmenter", "masker", "value"):
        name = getattr(recipe, kind)
        if name not in doors.plugins.names(kind):
            known = ", ".join(doors.plugins.names(kind)) or "none"
            raise Refused(409, "plugin", f"no {kind} is called {name!r}; installed: {known}", f"body.{kind}")
    if recipe.method not in METHODS:
        raise Refused(422, "invalid_request", f"there is no method {recipe.method!r}", "body.method")
    return recipe
