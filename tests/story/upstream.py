"""A scripted model server: raw sockets, no HTTP library, so that tests see and send exact bytes.

    with Upstream() as upstream:
        upstream.answers(HEAD, chunk(b"data: 1\\n\\n"), gate, chunk(b"data: 2\\n\\n"), LAST_CHUNK)

A script is a list of steps: bytes are sent, a gate is waited for, RESET and CLOSE end the
connection, HANG waits until the peer leaves, ECHO sends back whatever comes. `answers_by(function)`
writes a script for each request that comes. What arrives is recorded byte for byte.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

RESET, CLOSE, HANG, ECHO = "reset", "close", "hang", "echo"
LAST_CHUNK = b"0\r\n\r\n"


class Gate:
    """A step that waits until the test opens it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()


Step = bytes | str | Gate


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: bytes
    target: bytes
    version: bytes
    lines: list[tuple[bytes, bytes]]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.lines if key.lower() == name]


Respond = Callable[[Seen], Awaitable[Sequence[Step]]]


@dataclass
class Upstream:
    """Serves in a thread of its own."""

    requests: list[Seen] = field(default_factory=list)
    live: int = 0
    """Requests that are being answered now."""
    aborted: int = 0
    """Requests whose peer left before the script was at its end."""
    accepted: int = 0
    """Connections, ever."""
    sent: int = 0
    """Bytes that the network has taken from the script."""

    tls: ssl.SSLContext | None = None
    path: str | None = None
    """Of a unix socket to listen on, instead of a port."""

    def __post_init__(self) -> None:
        self._respond: Respond = _always(())
        self._reads_body = True
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="scripted-upstream")
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def answers(self, *script: Step, reads_body: bool = True) -> None:
        """What every request gets from now on. `reads_body=False` answers after the head already."""
        self._respond = _always(script)
        self._reads_body = reads_body
        self.requests.clear()
        self.aborted = self.sent = 0

    def answers_by(self, respond: Respond) -> None:
        """Each request gets the script that `respond` writes for it, in the server's own thread."""
        self._respond = respond

    def gate(self) -> Gate:
        return Gate(self._loop)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        if self.path is not None:
            server = await asyncio.start_unix_server(self._connected, self.path, limit=2**20)
        else:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**20, ssl=self.tls)
            self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            while await self._one_request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _one_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *rest = head[:-4].split(b"\r\n")
        method, target, version = first.split(b" ")
        lines = [(n, v.strip()) for n, _, v in (line.partition(b":") for line in rest)]
        named = {name.lower(): value for name, value in lines}
        body = await read_body(reader, named) if self._reads_body else b""
        seen = Seen(method, target, version, lines, body)
        self.requests.append(seen)
        self.live += 1
        try:
            return await self._answer(seen, reader, writer)
        finally:
            self.live -= 1

    async def _answer(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        steps = await self._respond(seen)
        if ECHO in steps:
            return await self._echo(steps, reader, writer)
        script = asyncio.create_task(self._play(steps, seen, writer))
        leaving = asyncio.create_task(self._peer_leaves(reader))
        try:
            await asyncio.wait((script, leaving), return_when=asyncio.FIRST_COMPLETED)
            if script.done() and not script.exception():
                return script.result()
            self.aborted += 1
            return False
        finally:
            for task in (script, leaving):
                task.cancel()
            await asyncio.gather(script, leaving, return_exceptions=True)

    async def _echo(self, steps: Sequence[Step], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.writelines([step for step in steps if isinstance(step, bytes)])
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        return False

    async def _peer_leaves(self, reader: asyncio.StreamReader) -> None:
        if not self._reads_body:
            await asyncio.Event().wait()
        try:
            data = await reader.read(1)
        except ConnectionError:
            return
        assert not data, f"the peer sent more before it was answered: {data!r}"

    async def _play(self, steps: Sequence[Step], seen: Seen, writer: asyncio.StreamWriter) -> bool:
        for step in steps:
            if isinstance(step, bytes):
                for start in range(0, len(step), 65536):
                    piece = step[start : start + 65536]
                    writer.write(piece)
                    await writer.drain()
                    self.sent += len(piece)
            elif isinstance(step, Gate):
                await step.wait()
            elif step == HANG:
                await asyncio.Event().wait()
            else:
                await _end(writer, step)
                return False
        return True


def _always(script: Sequence[Step]) -> Respond:
    async def respond(_: Seen) -> Sequence[Step]:
        return script

    return respond


async def _end(writer: asyncio.StreamWriter, how: str) -> None:
    await asyncio.sleep(0.02)  # let what was written leave first
    if how == RESET:
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort() if how == RESET else writer.close()


async def read_body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> bytes:
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return b"".join(parts)
    return await reader.readexactly(int(headers.get(b"content-length", b"0")))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(body: bytes, *lines: str, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """A whole answer with a length."""
    head = [f"HTTP/1.1 {status}", *lines, f"content-type: {content_type}", f"content-length: {len(body)}"]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def stream_head(*lines: str) -> bytes:
    """The head of a chunked event stream, as vLLM sends it."""
    head = [
        "HTTP/1.1 200 OK",
        "date: Sun, 22 Nov 2026 16:39:05 GMT",
        "server: uvicorn",
        *lines,
        "content-type: text/event-stream; charset=utf-8",
        "transfer-encoding: chunked",
    ]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n"


def eventually(condition: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait for what happens in another thread. The bound is generous: it is no performance claim."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)
