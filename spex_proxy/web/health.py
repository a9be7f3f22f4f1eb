"""For orchestrators and Prometheus: is it alive, does it serve, what has it counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response

from spex_proxy.ports.counters import Counters

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_health_router(
    version: str,
    counters: Counters,
    store_trouble: Callable[[], str | None],
    rules_trouble: Callable[[], str | None] = lambda: None,
) -> APIRouter:
    """What is wrong with the store, and with the newest version of the sampling rules; None: nothing."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok", "version": version}

    @router.get("/readyz")
    def readyz() -> dict[str, Any]:
        """Ready to relay. A store that is down does not change that, it is said under `store`; nor does a rules
        file with an error, while the rules before it hold."""
        store, rules = store_trouble() or "ok", rules_trouble() or "ok"
        return {"status": "ready", "store": store, "rules": rules, "counts": counters.snapshot()}

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        """All counters, for Prometheus."""
        return Response(counters.exposition(), media_type=METRICS_TYPE)

    return router
