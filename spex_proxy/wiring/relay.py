"""`serve`: one process with the relay port and the second port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Engine

from spex_proxy import __version__
from spex_proxy.flows.acting import Orders
from spex_proxy.ports.aside import in_own_process, on_own_loop
from spex_proxy.relay import new_event_loop, serve
from spex_proxy.settings import Settings
from spex_proxy.web.app import make_app as make_web
from spex_proxy.web.doors import Doors
from spex_proxy.web.server import serve as serve_second_port
from spex_proxy.wiring.handing_over import handover_door
from spex_proxy.wiring.relaying import Relaying
from spex_proxy.wiring.shared import labels, make_recipe, url_here
from spex_proxy.wiring.verifying import verify_stored

__all__ = ["new_event_loop", "run_relay"]

log = logging.getLogger(__name__)


def doors(settings: Settings, store: Callable[[], Engine], is_stopping: Callable[[], bool], orders: Orders) -> Doors:
    """What the second port opens."""
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


async def run_relay(settings: Settings, stop: asyncio.Event) -> None:
    """The relay port and the second port, in one process, until `stop` is set."""
    relay = Relaying(settings)
    relay.counters.watch("relay_processes", lambda: 1)
    if trouble := relay.saver.trouble():
        log.error("captures can't be stored, production is served: %s", trouble)
    web = make_web(
        __version__,
        relay.counters,
        lambda: relay.saver.trouble() or relay.trouble(),
        doors(settings, relay.saver.engine, stop.is_set, relay.orders),
        rules_trouble=lambda: relay.rules.trouble,
        handover=handover_door(settings, relay.watcher, relay.counters),
    )
    relay.start()
    try:
        async with asyncio.TaskGroup() as servers:
            servers.create_task(serve(relay.house, settings.host, settings.port, stop=stop))
            servers.create_task(
                # on a loop of its own: a long list or a large download delays no byte of production's
                on_own_loop(
                    lambda own: serve_second_port(web, settings.admin_host, settings.admin_port, stop=own), stop
                )
            )
    finally:
        await relay.close()
