"""The second port: health, JSON API and pages. Never on the relay port, which relays every path."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from spex_proxy.ports.counters import Shown
from spex_proxy.ports.store_gauges import JobNumbers, StoreGauges
from spex_proxy.store.condition import backlog
from spex_proxy.web import errors
from spex_proxy.web.api import PREFIX, make_api_router
from spex_proxy.web.doors import Doors
from spex_proxy.web.guard import Guard, is_loopback
from spex_proxy.web.handover import HandoverDoor, make_handover_router
from spex_proxy.web.health import Processes, make_health_router, make_metrics_router
from spex_proxy.web.pages import make_pages
from spex_proxy.web.review_pages import add_review_pages

ABOUT = """Why did the model say that? Exchanges that passed through the proxy, their explanations, and the
evidence that these follow from. Everything is read from the store; nothing here touches production's traffic.

Wherever a path takes an id, any id will do: ours, vLLM's response id, a trace id, or a unique beginning of one.
Every error is `{"error": {"message", "type", "code", "where"?}}`."""


def make_app(
    version: str,
    counters: Shown,
    store_trouble: Callable[[], str | None],
    doors: Doors,
    *,
    rules_trouble: Callable[[], str | None] = lambda: None,
    processes: Callable[[], Processes] = lambda: Processes(1, 1),
    handover: HandoverDoor | None = None,
) -> FastAPI:
    """The application. `store_trouble` says what is wrong with the store, or None; `rules_trouble` likewise;
    `handover` takes what vLLM's capture middleware saw."""
    app = FastAPI(
        title="spex-proxy",
        version=version,
        description=ABOUT,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # their scripts come from a CDN; what we serve works offline
        redoc_url=None,
        redirect_slashes=False,
    )
    counters.registry.register(StoreGauges(lambda: _job_numbers(doors)))
    errors.install(app)
    app.add_middleware(Guard, is_loopback=is_loopback(doors.host), names=doors.names)
    app.include_router(make_health_router(version, counters, store_trouble, rules_trouble, processes))
    app.include_router(make_api_router(doors))
    if handover is not None:
        app.include_router(make_handover_router(handover))
    pages_router, pages = make_pages(doors.store, doors.project, relay=doors.relay, version=version)
    add_review_pages(pages_router, pages, doors.labels)
    app.include_router(pages_router)
    return app


def make_worker_app(version: str, counters: Shown) -> FastAPI:
    """What a worker shows on a port of its own: that it lives, and what it has counted."""
    app = FastAPI(title="spex-proxy worker", version=version, openapi_url=None, docs_url=None, redoc_url=None)
    errors.install(app)
    app.include_router(make_metrics_router(version, counters))
    return app


def _job_numbers(doors: Doors) -> JobNumbers:
    now = doors.read(backlog)
    return JobNumbers({str(state): count for state, count in now.counts.items()}, now.oldest_waiting_s, now.workers)
