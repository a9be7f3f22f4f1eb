"""The listening side: accept, tidy up once a second, and stop in good order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from spex_proxy.relay.client import Client
from spex_proxy.relay.house import House
from spex_proxy.relay.sockets import listen_on

_LOG = logging.getLogger(__name__)

# Longer than clients keep idle connections: who closes last loses no request.
_KEEP_ALIVE_S = 75
_LINGER_S = 5
_TIDY_CLIENTS_EVERY_S = 5
_BACKLOG = 2048


async def serve(
    relay: House,
    host: str,
    port: int,
    *,
    stop: asyncio.Event,
    ready: Callable[[int], None] | None = None,
    grace_s: float = 30,
    is_shared: bool = False,
) -> int:
    """Serve until `stop` is set, then let running answers end for at most `grace_s`; how many were cut off.

    `host` may be `unix:/path`. `port` may be 0; `ready` is called with the bound port once connections are
    accepted. `is_shared`: other processes listen on the same port. Raises SettingsError if the address
    can't be bound.
    """
    loop = asyncio.get_running_loop()
    listener = listen_on(host, port, is_shared=is_shared)
    name = listener.getsockname()
    clients: set[Client] = set()
    server = await loop.create_server(lambda: Client(relay, clients), sock=listener, backlog=_BACKLOG)
    tidying = asyncio.create_task(_tidy(relay, clients))
    if ready is not None:
        ready(name[1] if isinstance(name, tuple) else 0)
    try:
        await stop.wait()
    finally:
        server.close()
        cut_off = await _drain(relay, clients, grace_s)
        tidying.cancel()
        await relay.pool.close()
    return cut_off


async def _tidy(relay: House, clients: set[Client]) -> None:
    while True:
        await asyncio.sleep(1.0)
        relay.tick += 1
        if relay.board is not None:
            relay.board.tick()
        relay.pool.close_idle()
        if relay.tick % _TIDY_CLIENTS_EVERY_S == 0:
            for client in list(clients):
                client.tidy(_KEEP_ALIVE_S, _LINGER_S)


async def _drain(relay: House, clients: set[Client], grace_s: float) -> int:
    """Answer what has begun, take no more; after the deadline cut the rest off, and say how many."""
    relay.is_draining = True
    for client in list(clients):
        client.drain()
    deadline = asyncio.get_running_loop().time() + grace_s
    while clients and asyncio.get_running_loop().time() < deadline:
        if all(client.is_idle for client in clients):
            deadline = min(deadline, asyncio.get_running_loop().time() + 1.0)  # answered; their last bytes leave
        await asyncio.sleep(0.02)
    cut_off = sum([client.stop() for client in list(clients)])
    if cut_off:
        _LOG.warning("stopped; %d requests were cut off, %g s after the signal", cut_off, grace_s)
    await asyncio.sleep(0)  # where the connections learn of their end
    return cut_off
