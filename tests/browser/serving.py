"""The real second port on loopback, in a thread, over a real store."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from sqlalchemy import Engine

from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.explanation import Check
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.verify import verify
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.store.connect import reading
from spex_proxy.web.app import make_app
from spex_proxy.web.doors import Doors


@dataclass
class Site:
    """A running second port."""

    url: str
    store: Engine
    is_down: bool = False
    """Set it to make the store unreachable."""

    def opened(self) -> Engine:
        if self.is_down:
            raise SettingsError("the store is away")
        return self.store


@contextmanager
def site(store: Engine, port: int = 0) -> Iterator[Site]:
    def checked(explanation_id: str, project: str) -> list[Check]:
        with reading(store) as connection:
            return verify(connection, explanation_id, project, Plugins())

    stopping, made = threading.Event(), Site("", store)
    doors = Doors(made.opened, "default", Recipe(), Plugins(), checked, stopping.is_set)
    app = make_app("0.0.test", Counters(), lambda: None, doors)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "the second port did not start"
        time.sleep(0.02)
    bound = server.servers[0].sockets[0].getsockname()[1]
    try:
        made.url = f"http://127.0.0.1:{bound}"
        yield made
    finally:
        stopping.set()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the second port did not stop"
