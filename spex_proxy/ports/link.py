"""Between a parent and a child of ours: the child tells how it does when asked, and learns when the parent is gone.

One socket pair, made by `ports.processes`: an empty line asks, a line of JSON answers, the end of the stream is
the end of the other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from spex_proxy.ports.counters import Snapshot

_LOG = logging.getLogger(__name__)
_MOST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Told:
    """What one process says of itself."""

    counts: Snapshot
    troubles: Mapping[str, str]
    """Place (`store`, `rules`) -> what is wrong there, in words."""


async def answer(fd: int, tell: Callable[[], Told]) -> None:
    """The child's side: answer until the parent is gone."""
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=fd), limit=_MOST_LINE)
    try:
        while await reader.readline():
            writer.write(json.dumps(asdict(tell())).encode() + b"\n")
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


class Link:
    """The parent's side of one child."""

    def __init__(self, end: socket.socket, ended: Callable[[Link], None]) -> None:
        """`ended` is called once, when the child is gone. Needs a running loop."""
        self.told: Told | None = None
        """The last answer; None until the first."""
        self._news = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._ended = ended
        self._task = asyncio.get_running_loop().create_task(self._listen(end))

    async def ask(self, within_s: float) -> None:
        """A new answer, if one comes in time."""
        if self._writer is None or self._writer.is_closing():
            return
        self._news.clear()
        self._writer.write(b"\n")
        try:
            await asyncio.wait_for(self._news.wait(), within_s)
        except TimeoutError:
            _LOG.debug("a relay process did not answer within %g s", within_s)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self, end: socket.socket) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=end, limit=_MOST_LINE)
        try:
            while line := await reader.readline():
                self.told = Told(**json.loads(line))
                self._news.set()
        except ConnectionError:
            pass
        finally:
            self._news.set()
            self._writer.close()
            self._ended(self)
