"""The second port listens: uvicorn, told to log nothing and leave signals alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from spex_proxy.facts.errors import SettingsError

# Longer than clients keep idle connections: who closes last loses no request.
_KEEP_ALIVE_S = 75


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: one process, one owner of signals, and it is not this."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: FastAPI,
    host: str,
    port: int,
    *,
    stop: asyncio.Event,
    ready: Callable[[int], None] | None = None,
    grace_s: int = 30,
) -> None:
    """Serve until `stop` is set, then let running answers end for at most `grace_s`.

    `port` may be 0; `ready` is called with the bound port once connections are accepted.
    Raises SettingsError if the address can't be bound.
    """
    listener = _bind(host, port)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=grace_s,
    )
    bound_port = listener.getsockname()[1]
    server = _Server(config, lambda: ready(bound_port) if ready is not None else None)
    stopping = asyncio.create_task(_stop(server, stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        stopping.cancel()
        listener.close()


async def _stop(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


def _bind(host: str, port: int) -> socket.socket:
    """Bound here and not by uvicorn, which exits the process when an address is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"can't listen on {host}:{port}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SettingsError(f"can't listen on {host}:{port}: {error}") from error
    return listener
