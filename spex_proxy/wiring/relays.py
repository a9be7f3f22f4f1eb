"""`serve --workers N`: several relay processes on one port, and a parent with the second port, which adds them up."""

from __future__ import annotations

import asyncio
import logging
import sys

from spex_proxy import __version__
from spex_proxy.facts.errors import SettingsError
from spex_proxy.flows.rules.keep import RulesInForce
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.crew import Crew
from spex_proxy.ports.processes import Program, run_together
from spex_proxy.relay import House, reserve
from spex_proxy.settings import Settings
from spex_proxy.web.app import make_app as make_web
from spex_proxy.web.health import Processes
from spex_proxy.web.server import serve as serve_second_port
from spex_proxy.wiring.relay import doors
from spex_proxy.wiring.relaying import Saver
from spex_proxy.wiring.sampling import callers, load_book, make_orders
from spex_proxy.wiring.together import environment_of

log = logging.getLogger(__name__)


async def run_relays(settings: Settings, stop: asyncio.Event) -> None:
    """The second port here, and `settings.workers` relay processes beside it, until `stop` is set.

    One that dies is started again while the others serve. Raises SettingsError for what would keep all of them
    from starting.
    """
    _check(settings)
    counters, saver = Counters(), Saver(settings)
    with reserve(settings.host, settings.port) as reserved:
        settings = settings.model_copy(update={"port": reserved.getsockname()[1]})
        if trouble := saver.trouble():
            log.error("captures can't be stored, production is served: %s", trouble)
        # for what is flagged on the second port; versions are kept, and changes counted, by the relay processes
        rules = RulesInForce(
            lambda: load_book(settings, settings.rules), settings.rules, Counters(), lambda _book: None
        )
        orders = make_orders(settings, lambda: rules.book, Plugins(), counters)
        rules.start()
        crew = Crew(counters, is_durable=settings.handoff == "durable")
        web = make_web(
            __version__,
            crew,
            lambda: saver.trouble() or crew.trouble("store"),
            doors(settings, saver.engine, stop.is_set, orders),
            rules_trouble=lambda: crew.trouble("rules"),
            processes=lambda: Processes(settings.workers, crew.serving),
        )
        asking = asyncio.create_task(crew.keep_asking())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(serve_second_port(web, settings.admin_host, settings.admin_port, stop=stop))
                group.create_task(run_together(_programs(settings, crew, counters), environment_of(settings), stop))
        finally:
            asking.cancel()
            await crew.close()
            await asyncio.to_thread(rules.close)
            saver.close()


def _programs(settings: Settings, crew: Crew, counters: Counters) -> list[Program]:
    command = [sys.executable, "-m", "spex_proxy", "serve", "--link"]
    return [
        Program(
            f"relay process {number} of {settings.workers}", command, is_vital=False,
            linked=crew.joined, restarted=lambda: counters.add("relay_restarts"),
        )
        for number in range(1, settings.workers + 1)
    ]  # fmt: skip


def _check(settings: Settings) -> None:
    """What each relay process would refuse. Raises SettingsError."""
    if settings.host.startswith("unix:"):
        raise SettingsError("only one process can listen on a unix socket: set workers (SPEX_WORKERS) to 1")
    if settings.handover_key is not None:
        raise SettingsError(
            "vLLM's capture middleware hands over to one process: set workers (SPEX_WORKERS) to 1, or no "
            "handover_key (SPEX_HANDOVER_KEY)"
        )
    load_book(settings, settings.rules)
    callers(settings)
    House.check(settings.upstreams, settings.upstream_ca)
