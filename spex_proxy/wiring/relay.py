"""`serve`: the relay port and the second port."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Engine, select

from spex_proxy import __version__
from spex_proxy.facts.errors import SpexError
from spex_proxy.facts.rules import RuleBook
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.intake import Captured, Intake, IntakeLimits
from spex_proxy.flows.relay import Hold, Sampler, Watcher
from spex_proxy.flows.rules.keep import RulesInForce
from spex_proxy.flows.save import save_captured
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.aside import in_own_process, on_own_loop
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.spool import Spool, SpoolLimits
from spex_proxy.relay import House, serve
from spex_proxy.settings import Settings
from spex_proxy.store import rules
from spex_proxy.store.connect import StoreError, reading
from spex_proxy.web.app import make_app as make_web
from spex_proxy.web.doors import Doors
from spex_proxy.web.server import serve as serve_second_port
from spex_proxy.wire.tap import TapBudget, TapLimits
from spex_proxy.wiring.sampling import callers, load_book, make_orders
from spex_proxy.wiring.shared import labels, make_recipe, make_telemetry, url_here
from spex_proxy.wiring.store import ready_store
from spex_proxy.wiring.verifying import verify_stored

log = logging.getLogger(__name__)

DRAIN_S = 10.0
"""How long captures may take to reach the store after the last request was served."""


class Saver:
    """What the intake saves into: opened at the first batch, so that the relay serves without a store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.orders: Orders | None = None
        self._recipe = make_recipe(settings)
        self._store: Engine | None = None
        self._opening = threading.Lock()
        self._failed: str | None = None
        self._unsaved_books: dict[str, RuleBook] = {}

    def save(self, batch: Sequence[Captured]) -> Mapping[str, int]:
        """One transaction: the exchanges, a job for each that is to be explained, and the rules they went by."""
        books = dict(self._unsaved_books)
        try:
            with self.engine().begin() as connection:
                for book in books.values():
                    rules.save_book(connection, book, project=self._settings.project)
                saved: Counter[str] = Counter(
                    save_captured(connection, captured, self._recipe, self.orders) for captured in batch
                )
        except Exception as error:
            self._failed = f"the last exchanges could not be saved: {getattr(error, 'orig', None) or error}"
            raise
        for digest in books:
            self._unsaved_books.pop(digest, None)
        self._failed = None
        return saved

    def remember(self, book: RuleBook) -> None:
        """Keep a version of the rules; with the next exchanges, if the store can't take it now."""
        self._unsaved_books[book.digest] = book
        try:
            self.save(())
        except (SpexError, StoreError) as error:
            log.warning("rules %s are not stored yet: %s", book.digest[:15], getattr(error, "orig", None) or error)

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


def _doors(settings: Settings, store: Callable[[], Engine], is_stopping: Callable[[], bool], orders: Orders) -> Doors:
    return Doors(
        store=store,
        project=settings.project,
        recipe=make_recipe(settings),
        plugins=orders.plugins,
        verify=lambda explanation_id, project: in_own_process(verify_stored, settings.store, explanation_id, project),
        is_stopping=is_stopping,
        host=settings.admin_host,
        names=tuple(name.strip() for name in settings.admin_names.split(",") if name.strip()),
        relay=url_here(settings.host, settings.port),
        labels=labels(settings),
        hold=timedelta(seconds=settings.review_hold_s),
        orders=orders,
    )


def _spool(settings: Settings, counters: Counters) -> Spool | None:
    """Of durable hand-off; None under best effort."""
    if settings.handoff == "best_effort":
        return None
    limits = SpoolLimits(max_bytes=settings.spool_bytes, max_unwritten_bytes=settings.queue_bytes)
    return Spool(settings.spool, counters, limits)


def _tell_the_end(left: int, spool: Spool | None, counters: Counters) -> None:
    """What became of everything that was taken."""
    where = "dropped" if spool is None else f"kept in {spool.path} for the next start, or dropped if counted so"
    level = logging.WARNING if left else logging.INFO
    log.log(level, "relay stopped; %d captures were not stored yet%s", left, f": {where}" if left else "")
    log.info("counts: %s", counters.snapshot())


async def run_relay(settings: Settings, stop: asyncio.Event) -> None:
    """The relay port and the second port, in one process, until `stop` is set."""
    counters, saver, telemetry = Counters(), Saver(settings), make_telemetry(settings)
    if trouble := saver.trouble():
        log.error("captures can't be stored, production is served: %s", trouble)
    in_force = RulesInForce(lambda: load_book(settings, settings.rules), settings.rules, counters, saver.remember)
    sampler = Sampler(
        book=lambda: in_force.book,
        secret=settings.draw_secret.get_secret_value().encode(),
        callers=callers(settings),
        project=settings.project,
    )
    orders = saver.orders = make_orders(settings, lambda: in_force.book, Plugins(), counters)
    spool = _spool(settings, counters)
    intake = Intake(
        save=saver.save,
        choose=sampler.choose,
        trace=lambda c: telemetry.request_span(c.exchange, c.traceparent, c.tracestate),
        counters=counters,
        limits=IntakeLimits(max_items=settings.queue_items, max_bytes=settings.queue_bytes),
        project=settings.project,
        spool=spool,
        note=orders.note,
    )
    limits = TapLimits(settings.max_body_bytes, settings.max_body_bytes)
    budget = TapBudget(settings.queue_bytes)
    counters.watch("tapped_bytes", lambda: budget.held)
    hold = Hold(intake.keep, settings.handoff_wait_s) if spool is not None else None
    watcher = Watcher(sampler, limits, budget, intake.offer, counters.add, hold)
    relay = House([settings.upstream], watcher, counters)
    web = make_web(
        __version__,
        counters,
        lambda: saver.trouble() or (spool and spool.trouble) or in_force.trouble,
        _doors(settings, saver.engine, stop.is_set, orders),
    )
    intake.start()
    in_force.start()
    try:
        async with asyncio.TaskGroup() as servers:
            servers.create_task(serve(relay, settings.host, settings.port, stop=stop))
            servers.create_task(
                # on a loop of its own: a long list or a large download delays no byte of production's
                on_own_loop(
                    lambda own: serve_second_port(web, settings.admin_host, settings.admin_port, stop=own), stop
                )
            )
    finally:
        await asyncio.to_thread(in_force.close)
        left = await asyncio.to_thread(intake.close, DRAIN_S)
        _tell_the_end(left, spool, counters)
        await asyncio.to_thread(telemetry.close)
        saver.close()
