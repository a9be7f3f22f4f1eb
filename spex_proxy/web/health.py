"""For orchestrators and Prometheus: is it alive, does it serve, what has it counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response

from spex_proxy.ports.counters import Counters

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_health_router(version: str, counters: Counters, store_trouble: Callable[[], str | None]) -> APIRouter:
    """`store_trouble` says what is wrong with the store, or None."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok", "version": version}

    @router.get("/readyz")
    def readyz() -> dict[str, Any]:
        """Ready to relay. A store that is down does not change that, it is said under `store`."""
        trouble = store_trouble()
        return {"status": "ready", "store": trouble or "ok", "counts": counters.snapshot()}

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        """All counters, for Prometheus."""
        return Response(counters.exposition(), media_type=METRICS_TYPE)

    return router
