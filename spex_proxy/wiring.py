"""Settings -> running parts. The only file that knows every concrete class."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Engine, select

from spex_proxy import __version__
from spex_proxy.engine.decide import METHODS
from spex_proxy.facts.errors import SettingsError, SpexError
from spex_proxy.facts.explanation import Check
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.doctor import Doctor, Setup
from spex_proxy.flows.explain import Parts
from spex_proxy.flows.intake import Captured, Intake, IntakeLimits
from spex_proxy.flows.jobs import Options, work
from spex_proxy.flows.relay import Sampler, Watcher
from spex_proxy.flows.save import save_captured
from spex_proxy.flows.verify import verify
from spex_proxy.flows.work import Report, Retries
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.aside import in_own_process, on_own_loop
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.look import Looker
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.processes import Program, run_together
from spex_proxy.ports.telemetry import Telemetry, make_provider
from spex_proxy.relay.app import make_app
from spex_proxy.relay.server import serve
from spex_proxy.settings import Settings
from spex_proxy.store.connect import StoreError, open_store, reading, revision_state, upgrade
from spex_proxy.web.app import make_app as make_web
from spex_proxy.web.doors import Doors
from spex_proxy.wire.tap import TapBudget, TapLimits

log = logging.getLogger(__name__)

DRAIN_S = 10.0
"""How long captures may take to reach the store after the last request was served."""


def make_recipe(settings: Settings) -> Recipe:
    if settings.method not in METHODS:
        raise SettingsError(f"method {settings.method!r} (SPEX_METHOD) is unknown; there is {', '.join(METHODS)}")
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
        store.dispose()
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


@asynccontextmanager
async def doctor_parts(settings: Settings, model: str | None) -> AsyncIterator[Doctor]:
    """What looks at everything; needs nothing of it to be there."""
    key = settings.upstream_api_key.get_secret_value() if settings.upstream_api_key else None
    setup = Setup(
        upstream=settings.upstream,
        api_key=key,
        model=model,
        scheduling_policy=settings.scheduling_policy,
        priority=settings.background_priority,
        relay_url=_url_here(settings.host, settings.port),
        second_url=_url_here(settings.admin_host, settings.admin_port),
        store=settings.store,
        chosen={"segmenter": settings.segmenter, "masker": settings.masker, "value": settings.value},
        otlp_endpoint=settings.otlp_endpoint,
        version=__version__,
    )
    async with ModelServer(settings.upstream, key) as server, Looker() as looker:
        yield Doctor(setup, server, looker, Plugins())


def _url_here(host: str, port: int) -> str:
    """Where this machine reaches one of our own ports."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Saver:
    """What the intake saves into: opened at the first batch, so that the relay serves without a store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._recipe = make_recipe(settings)
        self._store: Engine | None = None
        self._opening = threading.Lock()
        self._failed: str | None = None

    def save(self, batch: Sequence[Captured]) -> None:
        """One transaction: the exchanges, and a job for each that is to be explained."""
        try:
            with self.engine().begin() as connection:
                for captured in batch:
                    save_captured(connection, captured, self._recipe)
        except Exception as error:
            self._failed = f"the last exchanges could not be saved: {getattr(error, 'orig', None) or error}"
            raise
        self._failed = None

    def trouble(self) -> str | None:
        """What keeps the store from being written, in words; None if nothing does, as far as is known."""
        try:
            with reading(self.engine()) as connection:
                connection.execute(select(1))
        except SpexError as error:
            return str(error)
        except StoreError as error:
            return f"the store failed: {getattr(error, 'orig', None) or type(error).__name__}"
        return self._failed

    def close(self) -> None:
        if self._store is not None:
            self._store.dispose()

    def engine(self) -> Engine:
        """Raises SettingsError or StoreError while the store can't be used."""
        with self._opening:
            if self._store is None:
                self._store = ready_store(self._settings)
            return self._store


def _doors(settings: Settings, store: Callable[[], Engine], is_stopping: Callable[[], bool]) -> Doors:
    return Doors(
        store=store,
        project=settings.project,
        recipe=make_recipe(settings),
        plugins=Plugins(),
        verify=lambda explanation_id, project: in_own_process(verify_stored, settings.store, explanation_id, project),
        is_stopping=is_stopping,
        host=settings.admin_host,
        relay=_url_here(settings.host, settings.port),
    )


def verify_stored(url: str, explanation_id: str, project: str) -> list[Check]:
    """`verify` with a store of its own."""
    store = open_store(url, create=False)
    try:
        with reading(store) as connection:
            return verify(connection, explanation_id, project, Plugins())
    finally:
        store.dispose()


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
    web = make_web(__version__, counters, saver.trouble, _doors(settings, saver.engine, stop.is_set))
    intake.start()
    try:
        async with asyncio.TaskGroup() as servers:
            servers.create_task(serve(relay, settings.host, settings.port, stop=stop))
            servers.create_task(
                # on a loop of its own: a long list or a large download delays no byte of production's
                on_own_loop(lambda own: serve(web, settings.admin_host, settings.admin_port, stop=own), stop)
            )
    finally:
        left = await asyncio.to_thread(intake.close, DRAIN_S)
        log.info("relay stopped; %d captures were left unsaved; counts: %s", left, counters.snapshot())
        await asyncio.to_thread(telemetry.close)
        saver.close()


async def run_worker(settings: Settings, stop: asyncio.Event, on_report: Callable[[Report], None]) -> None:
    async with worker_parts(settings) as parts:
        is_shared = parts.store.dialect.name != "sqlite"
        options = Options(
            concurrency=settings.worker_concurrency or (2 if is_shared else 1),
            ttl_s=settings.worker_ttl_s,
            retries=Retries(settings.job_tries, settings.job_pause_s),
        )
        await work(parts, options, stop, on_report)


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
