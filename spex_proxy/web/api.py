"""The JSON API, under /spex/api/v1 on the second port. The records are facts.records; errors are errors.py."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Depends, Request
from fastapi.dependencies.models import Dependant

from spex_proxy.web import api_cases, api_exchanges, api_explanations, api_flags, api_jobs, api_query, api_retests
from spex_proxy.web.doors import Doors
from spex_proxy.web.errors import Refused

PREFIX = "/spex/api/v1"


def known_only(request: Request) -> None:
    """A filter that is misspelt would otherwise show everything, as if nothing had been asked."""
    known = set(_parameters(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            there = ", ".join(sorted(known))
            raise Refused(
                422, "invalid_request", f"there is no parameter {name!r} here; there is {there}", f"query.{name}"
            )


def _parameters(dependant: Dependant) -> Iterator[str]:
    """Of a route, and of what it depends on."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for other in dependant.dependencies:
        yield from _parameters(other)


def make_api_router(doors: Doors) -> APIRouter:
    """All of it."""
    router = APIRouter(prefix=PREFIX, dependencies=[Depends(known_only)])
    router.include_router(api_query.make_router(doors))
    router.include_router(api_exchanges.make_router(doors))
    router.include_router(api_explanations.make_router(doors))
    router.include_router(api_jobs.make_router(doors))
    router.include_router(api_flags.make_router(doors))
    router.include_router(api_cases.make_router(doors))
    router.include_router(api_retests.make_router(doors))
    return router
