"""Settings -> running parts. The only file that knows every concrete class."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Engine

from spex_proxy import __version__
from spex_proxy.facts.errors import SettingsError, SpexError
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.explain import Parts
from spex_proxy.flows.intake import Captured, Intake, IntakeLimits
from spex_proxy.flows.relay import Sampler, Watcher
from spex_proxy.flows.save import save_captured
from spex_proxy.flows.work import Report, work
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.processes import Program, run_together
from spex_proxy.ports.telemetry import Telemetry, make_provider
from spex_proxy.relay.app import make_app
from spex_proxy.relay.server import serve
from spex_proxy.settings import Settings
from spex_proxy.store.connect import StoreError, open_store, revision_state, upgrade
from spex_proxy.web.api import make_api
from spex_proxy.wire.tap import TapBudget, TapLimits

log = logging.getLogger(__name__)

DRAIN_S = 10.0
"""How long captures may take to reach the store after the last request was served."""


def make_recipe(settings: Settings) -> Recipe:
    return Recipe(
        segmenter=settings.segmenter,
        masker=settings.masker,
        value=settings.value,
        method=settings.method,
        budget=settings.budget,
        seed=settings.seed,
        target_r2=settings.target_r2,
    )


def make_telemetry(settings: Settings) -> Telemetry:
    return Telemetry(make_provider(__version__, settings.otlp_endpoint), __version__)


def ready_store(settings: Settings) -> Engine:
    """The store, if its schema is the one that this code needs; else SettingsError says what to run."""
    store = open_store(settings.store, create=False)
    state = revision_state(store)
    if not state.is_current:
        raise SettingsError(
            f"the store {store.url.render_as_string(hide_password=True)} is at revision {state.current or 'none'}, "
            f"this version needs {state.head}: run `spex-proxy db upgrade`"
        )
    return store


def migrate(settings: Settings) -> str:
    """Bring the store to the newest schema; returns its revision."""
    store = open_store(settings.store)
    upgrade(store)
    state = revision_state(store)
    store.dispose()
    return state.head


@asynccontextmanager
async def worker_parts(settings: Settings) -> AsyncIterator[Parts]:
    """What explanations are made with; closed at the end."""
    store = ready_store(settings)
    telemetry = make_telemetry(settings)
    key = settings.upstream_api_key.get_secret_value() if settings.upstream_api_key else None
    plugins = Plugins()
    for kind, name in (("segmenter", settings.segmenter), ("masker", settings.masker), ("value", settings.value)):
        plugins.get(kind, name)  # a bad plugin is refused now, not at the first job
    async with ModelServer(settings.upstream, key) as server:
        try:
            yield Parts(store, server, plugins, telemetry, settings.background_priority)
        finally:
            await asyncio.to_thread(telemetry.close)
            store.dispose()


class Saver:
    """What the intake saves into: opened at the first batch, so that the relay serves without a store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._recipe = make_recipe(settings)
        self._store: Engine | None = None

    def save(self, batch: Sequence[Captured]) -> None:
        """One transaction: the exchanges, and a job for each that is to be explained."""
        with self._open().begin() as connection:
            for captured in batch:
                save_captured(connection, captured, self._recipe)

    def trouble(self) -> str | None:
        """What keeps the store from being written, in words; None if nothing does."""
        try:
            self._open()
        except (SpexError, StoreError) as error:
            return str(error)
        return None

    def close(self) -> None:
        if self._store is not None:
            self._store.dispose()

    def _open(self) -> Engine:
        if self._store is None:
            self._store = ready_store(self._settings)
        return self._store


async def run_relay(settings: Settings, stop: asyncio.Event) -> None:
    """The relay port and the second port, in one process, until `stop` is set."""
    counters, saver, telemetry = Counters(), Saver(settings), make_telemetry(settings)
    if trouble := saver.trouble():
        log.error("captures can't be stored, production is served: %s", trouble)
    sampler = Sampler(
        secret=settings.draw_secret.get_secret_value().encode(),
        capture_rate=settings.capture_rate,
        explain_rate=settings.explain_rate,
    )
    intake = Intake(
        save=saver.save,
        choose=sampler.choose,
        trace=lambda c: telemetry.request_span(c.exchange, c.traceparent, c.tracestate),
        counters=counters,
        limits=IntakeLimits(max_items=settings.queue_items, max_bytes=settings.queue_bytes),
        project=settings.project,
    )
    limits = TapLimits(settings.max_body_bytes, settings.max_body_bytes)
    budget = TapBudget(settings.queue_bytes)
    counters.watch("tapped_bytes", lambda: budget.held)
    watcher = Watcher(sampler, limits, budget, intake.offer)
    relay = make_app(settings.upstream, watcher, counters)
    api = make_api(__version__, counters, saver.trouble)
    intake.start()
    try:
        async with asyncio.TaskGroup() as servers:
            servers.create_task(serve(relay, settings.host, settings.port, stop=stop))
            servers.create_task(serve(api, settings.admin_host, settings.admin_port, stop=stop))
    finally:
        left = await asyncio.to_thread(intake.close, DRAIN_S)
        log.info("relay stopped; %d captures were left unsaved; counts: %s", left, counters.snapshot())
        await asyncio.to_thread(telemetry.close)
        saver.close()


async def run_worker(settings: Settings, stop: asyncio.Event, on_report: Callable[[Report], None]) -> None:
    async with worker_parts(settings) as parts:
        await work(parts, f"{socket.gethostname()}:{settings.project}", stop, on_report)


async def run_up(settings: Settings, stop: asyncio.Event) -> int:
    """Relay and worker as two processes of their own."""
    command = [sys.executable, "-m", "spex_proxy"]
    programs = [
        Program("the relay", [*command, "serve"], is_vital=True),
        Program("the worker", [*command, "work"], is_vital=False),
    ]
    return await run_together(programs, environment_of(settings), stop)


def environment_of(settings: Settings) -> Mapping[str, str]:
    """This process's environment with every setting in it, for child processes."""
    values = dict(os.environ)
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if value is not None:
            secret = getattr(value, "get_secret_value", None)
            values[f"SPEX_{name.upper()}"] = str(secret() if secret else value)
    return values
