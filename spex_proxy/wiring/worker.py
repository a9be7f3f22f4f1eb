"""`work`, and `explain` without a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

from spex_proxy import __version__
from spex_proxy.facts.load import Unseen
from spex_proxy.facts.token_budget import TokenBudget, read_hours
from spex_proxy.flows.chores import Chore
from spex_proxy.flows.explain import Parts
from spex_proxy.flows.handover import BACKGROUND_HEADER
from spex_proxy.flows.jobs import Options, work
from spex_proxy.flows.rules.keep import RulesInForce
from spex_proxy.flows.telling import TELL_S, tell
from spex_proxy.flows.work import Report, Retries
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.aside import on_own_loop
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.gate.gate import Gate
from spex_proxy.ports.gate.server_load import ServerWatch
from spex_proxy.ports.load_board import Board
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.model_servers import ModelServers
from spex_proxy.ports.scorers.choose import Scorers
from spex_proxy.ports.webhooks import Webhooks
from spex_proxy.settings import Settings
from spex_proxy.web.app import make_worker_app
from spex_proxy.web.server import serve as serve_own_port
from spex_proxy.wiring.sampling import load_book, make_orders
from spex_proxy.wiring.shared import make_telemetry
from spex_proxy.wiring.store import ready_store


@asynccontextmanager
async def worker_parts(settings: Settings, *, in_foreground: bool = False) -> AsyncIterator[Parts]:
    """What explanations are made with; closed at the end. `in_foreground`: a person waits for the answer."""
    store = ready_store(settings)
    telemetry = make_telemetry(settings)
    key = settings.upstream_api_key.get_secret_value() if settings.upstream_api_key else None
    plugins = Plugins()
    for kind, name in (("segmenter", settings.segmenter), ("masker", settings.masker), ("value", settings.value)):
        plugins.get(kind, name)  # a bad plugin is refused now, not at the first job

    def scorers_of(server: ModelServer) -> Scorers:
        return Scorers(server, settings.scorer, settings.background_priority)

    budget = TokenBudget(settings.tokens_per_minute, settings.tokens_per_hour, settings.tokens_per_day)
    marks = {BACKGROUND_HEADER: settings.handover_key.get_secret_value() if settings.handover_key else "yes"}
    servers_of_all = ModelServers(settings.upstreams, key, settings.upstream_ca, marks)
    counters = Counters()
    in_force = RulesInForce(lambda: load_book(settings, settings.rules), settings.rules, counters, lambda _book: None)
    orders = make_orders(settings, lambda: in_force.book, plugins, counters)
    in_force.start()
    async with servers_of_all as servers, _gate(settings, key, counters, in_foreground=in_foreground) as gate:
        try:
            priority = settings.background_priority
            yield Parts(store, servers, plugins, telemetry, cache(scorers_of), priority, gate, budget, counters, orders)
        finally:
            await asyncio.to_thread(in_force.close)
            await asyncio.to_thread(telemetry.close)
            store.dispose()


@asynccontextmanager
async def _gate(
    settings: Settings, key: str | None, counters: Counters, *, in_foreground: bool
) -> AsyncIterator[Gate | None]:
    """A person who asks in the foreground waits for production that is seen; where no relay runs there is none to
    see, and the person decides."""
    if settings.gate == "off":
        yield None
        return
    board = Board(settings.board)
    if in_foreground and isinstance(board.read(), Unseen):
        board.close()
        yield None
        return
    watches = {url: ServerWatch(url, key, settings.upstream_ca) for url in settings.upstreams}
    try:
        hours = read_hours(settings.gate_hours)
        yield Gate(board.read, lambda url: watches[url].look(), hours, count=counters.add)
    finally:
        for one in watches.values():
            await one.close()
        board.close()


async def run_worker(settings: Settings, stop: asyncio.Event, on_report: Callable[[Report], None]) -> None:
    async with worker_parts(settings) as parts:
        is_shared = parts.store.dialect.name != "sqlite"
        options = Options(
            concurrency=settings.worker_concurrency or (2 if is_shared else 1),
            ttl_s=settings.worker_ttl_s,
            retries=Retries(settings.job_tries, settings.job_pause_s),
        )
        secret = settings.webhook_secret.get_secret_value().encode() if settings.webhook_secret else b""
        async with Webhooks(secret) as webhooks:
            telling = Chore("webhooks", TELL_S, lambda: tell(parts.store, webhooks.send, parts.counters))
            async with asyncio.TaskGroup() as together:
                if settings.worker_port is not None:
                    together.create_task(_show(settings, settings.worker_port, parts.counters, stop))
                await work(parts, options, stop, on_report, (telling,))


async def _show(settings: Settings, port: int, counters: Counters, stop: asyncio.Event) -> None:
    """The worker's own health and metrics, until `stop` is set. Raises SettingsError if the port is taken."""
    web = make_worker_app(__version__, counters)
    await on_own_loop(lambda own: serve_own_port(web, settings.admin_host, port, stop=own), stop)
