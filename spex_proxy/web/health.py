"""For orchestrators and Prometheus: is it alive, does it serve, what has it counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from spex_proxy.ports.counters import Shown

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Processes(NamedTuple):
    """Relay processes on one port."""

    wanted: int
    serving: int


def make_health_router(
    version: str,
    counters: Shown,
    store_trouble: Callable[[], str | None],
    rules_trouble: Callable[[], str | None] = lambda: None,
    processes: Callable[[], Processes] = lambda: Processes(1, 1),
) -> APIRouter:
    """What is wrong with the store, and with the newest version of the sampling rules; None: nothing."""
    router = make_metrics_router(version, counters)

    @router.get("/readyz", responses={503: {"description": "No relay process serves yet, or any more."}})
    def readyz() -> Any:
        """Ready to relay, if one process at least serves. A store that is down does not change that, it is said
        under `store`; nor does a rules file with an error, while the rules before it hold."""
        store, rules = store_trouble() or "ok", rules_trouble() or "ok"
        counts, (wanted, serving) = counters.snapshot(), processes()
        status = "ready" if serving == wanted else "degraded" if serving else "starting"
        told: dict[str, Any] = {"status": status, "store": store, "rules": rules}
        told |= {"processes": {"wanted": wanted, "serving": serving}, "counts": counts}
        return told if serving else JSONResponse(told, 503)

    return router


def make_metrics_router(version: str, counters: Shown) -> APIRouter:
    """Of a process that relays nothing: it lives, and what it has counted."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok", "version": version}

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def metrics() -> Response:
        """All counters, for Prometheus."""
        return Response(counters.exposition(), media_type=METRICS_TYPE)

    return router
