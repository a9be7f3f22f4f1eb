"""The second port: health, readiness and metrics. Never on the relay port, which relays every path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Response

from spex_proxy.ports.counters import Counters

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_api(version: str, counters: Counters, store_trouble: Callable[[], str | None]) -> FastAPI:
    """The application. `store_trouble` says what is wrong with the store, or None."""
    api = FastAPI(title="spex-proxy", version=version)

    @api.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok", "version": version}

    @api.get("/readyz")
    def readyz() -> dict[str, Any]:
        """Ready to relay. A store that is down does not change that, it is said under `store`."""
        trouble = store_trouble()
        return {"status": "ready", "store": trouble or "ok", "counts": counters.snapshot()}

    @api.get("/metrics")
    def metrics() -> Response:
        """All counters, for Prometheus."""
        return Response(counters.exposition(), media_type=METRICS_TYPE)

    return api
