"""A TCP passage on loopback to another address or a socket, which knows when whoever uses it left. For `doctor`."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self


class Passage:
    """Bytes go through as they are. Use as a context manager."""

    def __init__(self, host: str, port: int | None = None) -> None:
        """Without a port, `host` is the path of a unix socket."""
        self._to = host, port
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.left: asyncio.Queue[float] = asyncio.Queue()
        """When each connection was ended by its user, on the clock of `time.perf_counter`."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            back, there = await self._open()
        except OSError:
            writer.close()
            return
        down = asyncio.create_task(_pump(back, writer))
        try:
            await _pump(reader, there)
            self.left.put_nowait(time.perf_counter())
        finally:
            down.cancel()
            there.close()
            writer.close()
            self._tasks.discard(task)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._to
        return await (asyncio.open_unix_connection(host) if port is None else asyncio.open_connection(host, port))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side is gone."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
    except OSError:
        pass
