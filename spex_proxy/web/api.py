"""The JSON API, under /spex/api/v1 on the second port. The records are facts.records; errors are errors.py."""

from __future__ import annotations

from fastapi import APIRouter

from spex_proxy.web import api_exchanges, api_explanations, api_jobs
from spex_proxy.web.doors import Doors

PREFIX = "/spex/api/v1"


def make_api_router(doors: Doors) -> APIRouter:
    """All of it."""
    router = APIRouter(prefix=PREFIX)
    router.include_router(api_exchanges.make_router(doors))
    router.include_router(api_explanations.make_router(doors))
    router.include_router(api_jobs.make_router(doors))
    return router
