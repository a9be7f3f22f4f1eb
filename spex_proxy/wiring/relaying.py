"""A relay process and everything behind it but the second port, which several of them have together."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import Engine, select

from spex_proxy.facts.errors import SettingsError, SpexError
from spex_proxy.facts.rules import RuleBook
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.intake import Intake, IntakeLimits
from spex_proxy.flows.relay import Hold, Sampler, Watcher
from spex_proxy.flows.rules.keep import RulesInForce
from spex_proxy.flows.save import save_captured
from spex_proxy.flows.understand import Captured
from spex_proxy.plug.load import Plugins
from spex_proxy.ports import link as link_
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.link import Told
from spex_proxy.ports.load_board import Board, Slot
from spex_proxy.ports.spool import Spool, SpoolLimits
from spex_proxy.relay import House, new_event_loop, serve
from spex_proxy.settings import Settings
from spex_proxy.store import rules
from spex_proxy.store.connect import StoreError, reading
from spex_proxy.wire.tap import TapBudget, TapLimits
from spex_proxy.wiring.sampling import callers, load_book, make_orders
from spex_proxy.wiring.shared import make_recipe, make_telemetry
from spex_proxy.wiring.store import ready_store

__all__ = ["Relaying", "Saver", "new_event_loop", "run_linked_relay"]

log = logging.getLogger(__name__)

DRAIN_S = 10.0
"""How long captures may take to reach the store after the last request was served."""


class Saver:
    """What the intake saves into: opened at the first batch, so that the relay serves without a store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.orders: Orders | None = None
        """What is done about flags, once it is known."""
        self._recipe = make_recipe(settings)
        self._store: Engine | None = None
        self._opening = threading.Lock()
        self.failed: str | None = None
        """Why the last exchanges could not be saved; None if they were."""
        self._unsaved_books: dict[str, RuleBook] = {}

    def save(self, batch: Sequence[Captured]) -> Mapping[str, int]:
        """One transaction: the exchanges, a job for each that is to be explained, and the rules they went by."""
        books = dict(self._unsaved_books)
        try:
            with self.engine().begin() as connection:
                for book in books.values():
                    rules.save_book(connection, book, project=self._settings.project)
                saved: Counter[str] = Counter(save_captured(connection, batch, self._recipe, self.orders))
        except Exception as error:
            self.failed = f"the last exchanges could not be saved: {getattr(error, 'orig', None) or error}"
            raise
        for digest in books:
            self._unsaved_books.pop(digest, None)
        self.failed = None
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
        return self.failed

    def close(self) -> None:
        if self._store is not None:
            self._store.dispose()

    def engine(self) -> Engine:
        """Raises SettingsError or StoreError while the store can't be used."""
        with self._opening:
            if self._store is None:
                self._store = ready_store(self._settings)
            return self._store


def _slot(settings: Settings) -> Slot | None:
    """Where workers see what production is doing. Without it they wait for ever, and production is served."""
    if settings.gate == "off":
        return None
    try:
        return Board(settings.board).slot()
    except SettingsError as error:
        log.error("nothing will be explained, production is served: %s", error)
        return None


class Relaying:
    """A relay and everything behind it. `start()`, serve `house`, then `close()`."""

    def __init__(self, settings: Settings, *, parts: int = 1) -> None:
        """`parts`: so many processes share what may wait in memory and on disk. Raises SettingsError."""
        self.counters, self.saver, self.telemetry = Counters(), Saver(settings), make_telemetry(settings)
        self.rules = RulesInForce(
            lambda: load_book(settings, settings.rules), settings.rules, self.counters, self.saver.remember
        )
        sampler = Sampler(
            book=lambda: self.rules.book,
            secret=settings.draw_secret.get_secret_value().encode(),
            callers=callers(settings),
            project=settings.project,
        )
        self.orders = self.saver.orders = make_orders(settings, lambda: self.rules.book, Plugins(), self.counters)
        most_items, most_bytes = max(1, settings.queue_items // parts), max(1, settings.queue_bytes // parts)
        self.spool: Spool | None = None
        if settings.handoff == "durable":
            limits = SpoolLimits(max_bytes=max(1, settings.spool_bytes // parts), max_unwritten_bytes=most_bytes)
            self.spool = Spool(settings.spool, self.counters, limits)
        self.intake = Intake(
            save=self.saver.save,
            choose=sampler.choose,
            trace=lambda c: self.telemetry.request_span(c.exchange, c.traceparent, c.tracestate),
            counters=self.counters,
            limits=IntakeLimits(max_items=most_items, max_bytes=most_bytes),
            project=settings.project,
            spool=self.spool,
            note=self.orders.note,
        )
        budget = TapBudget(most_bytes)
        self.counters.watch("tapped_bytes", lambda: budget.held)
        hold = Hold(self.intake.keep, settings.handoff_wait_s) if self.spool is not None else None
        limits_of_one = TapLimits(settings.max_body_bytes, settings.max_body_bytes)
        self.watcher = Watcher(sampler, limits_of_one, budget, self.intake.offer, self.counters.add, hold)
        self._slot = _slot(settings)
        self.house = House(settings.upstreams, self.watcher, self.counters, ca=settings.upstream_ca, board=self._slot)

    def start(self) -> None:
        self.intake.start()
        self.rules.start()

    def trouble(self) -> str | None:
        """What keeps exchanges from the store, as far as this process has seen it."""
        return self.saver.failed or (self.spool.trouble if self.spool is not None else None)

    def tell(self) -> Told:
        """For the parent of several relay processes."""
        troubles = {"store": self.trouble(), "rules": self.rules.trouble}
        return Told(self.counters.snapshot(), {place: words for place, words in troubles.items() if words})

    async def close(self) -> None:
        """Hand on what was captured, and say what is left."""
        if self._slot is not None:
            self._slot.close()
        await asyncio.to_thread(self.rules.close)
        left = await asyncio.to_thread(self.intake.close, DRAIN_S)
        self._tell_the_end(left)
        await asyncio.to_thread(self.telemetry.close)
        self.saver.close()

    def _tell_the_end(self, left: int) -> None:
        """What became of everything that was taken."""
        where = "dropped"
        if self.spool is not None:
            where = f"kept in {self.spool.path} for the next start, or dropped if counted so"
        level = logging.WARNING if left else logging.INFO
        log.log(level, "relay stopped; %d captures were not stored yet%s", left, f": {where}" if left else "")
        log.info("counts: %s", self.counters.snapshot())


async def run_linked_relay(settings: Settings, stop: asyncio.Event, link: int) -> None:
    """One of several relay processes, which has no second port: its parent asks over the file descriptor `link`.

    When the parent is gone, it stops in good order.
    """
    relay = Relaying(settings, parts=settings.workers)
    relay.counters.watch("relay_processes", lambda: 1)
    serving = asyncio.Event()

    async def tell_parent() -> None:
        await serving.wait()  # who answers the parent serves
        await link_.answer(link, relay.tell)
        if not stop.is_set():
            log.warning("the process that started this one is gone; stopping")
            stop.set()

    telling = asyncio.create_task(tell_parent())
    relay.start()
    try:
        await serve(
            relay.house, settings.host, settings.port, stop=stop, is_shared=True, ready=lambda _port: serving.set()
        )
    finally:
        await relay.close()
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
