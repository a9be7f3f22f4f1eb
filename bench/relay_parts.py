"""By which parts a relay is fast: ours beside a pump that reads nothing, and beside a relay of ready-made parts.

    python -m bench.relay_parts --json FILE

- bare      two asyncio protocols on uvloop that copy bytes: no parser, no pool, no rules. The floor for Python.
- ours      `spex-proxy serve`, capture off: the same two protocols with a strict grammar, a pool and its counters.
- ready     raw ASGI under uvicorn (httptools, uvloop) with aiohttp's client, if aiohttp is installed: no framework,
            no parsing of bodies, no log. What the relay was before it was two protocols.

The upstream, the load and the rounds are those of `bench.overhead`. `--parts PYTHON` runs `ready` by another
interpreter, one that has uvicorn and aiohttp.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from bench.overhead.__main__ import arguments, run
from bench.overhead.table import tables

HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade", b"host", b"content-length"}
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Pump(asyncio.Protocol):
    """One side of a connection: what it reads, the other side writes."""

    def __init__(self, upstream: int | None = None, other: Pump | None = None) -> None:
        self._upstream, self._other = upstream, other
        self._early: list[bytes] = []
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._upstream is not None:
            self._opening = asyncio.get_running_loop().create_task(self._open(self._upstream))

    async def _open(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        _, self._other = await loop.create_connection(lambda: Pump(other=self), "127.0.0.1", port)
        for data in self._early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self._other is None or self._other.transport is None:
            self._early.append(data)
        else:
            self._other.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self._other is not None and self._other.transport is not None:
            self._other.transport.close()


async def bare(upstream: int, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Pump(upstream), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def ready(upstream: int, port: int) -> None:
    """Raw ASGI with aiohttp. A client that leaves cancels the request to the upstream."""
    import aiohttp  # noqa: PLC0415 - only where it is installed
    import uvicorn  # noqa: PLC0415

    sessions: list[aiohttp.ClientSession] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not sessions:
            connector = aiohttp.TCPConnector(limit=0)
            sessions.append(aiohttp.ClientSession(connector=connector, auto_decompress=False))
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        passing = asyncio.ensure_future(relay(scope, body, send))
        leaving = asyncio.ensure_future(receive())
        await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (passing, leaving):
            task.cancel()

    async def relay(scope: dict[str, Any], body: bytes, send: Send) -> None:
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"] if k not in HOP_BY_HOP]
        url = f"http://127.0.0.1:{upstream}{scope['path']}"
        async with sessions[0].request(scope["method"], url, headers=headers, data=body) as answer:
            kept = [(k, v) for k, v in answer.raw_headers if k.lower() not in HOP_BY_HOP - {b"content-length"}]
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="off")


def has_parts(python: str) -> bool:
    return subprocess.run([python, "-c", "import aiohttp, uvicorn"], capture_output=True, check=False).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", default="5")
    parser.add_argument("--noise", default="0.35", help="cores that others may use in a round that counts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", default=sys.executable, metavar="PYTHON", help="an interpreter that has aiohttp")
    parser.add_argument("--serve", choices=("bare", "ready"), help=argparse.SUPPRESS)
    parser.add_argument("--ports", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve == "ready":
        ready(*options.ports)
        return
    if options.serve == "bare":
        import uvloop  # noqa: PLC0415 - the other interpreter may lack it

        uvloop.run(bare(*options.ports))
        return
    this = shlex.quote(str(Path(__file__).resolve().parents[1]))
    peers = {"bare": sys.executable}
    if has_parts(options.parts):
        peers["ready"] = options.parts
    else:
        print(f"ready: not run, {options.parts} has no aiohttp", file=sys.stderr)
    words = [
        f"--peer={name}=env PYTHONPATH={this} {shlex.quote(python)} -m bench.relay_parts --serve {name}"
        " --ports {upstream} {port}"
        for name, python in peers.items()
    ]
    words += ["--targets", "off", *peers, "--only", "small", "connections", "streams", "aborts"]
    record = run(arguments([*words, "--rounds", options.rounds, "--noise", options.noise]))
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(tables(record))


if __name__ == "__main__":
    main()
