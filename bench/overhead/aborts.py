"""How soon the upstream learns that a client has left, and whether a request arrives as it was sent."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass

from bench.overhead.load import request
from bench.overhead.targets import Target, get


@dataclass(frozen=True, slots=True)
class Phase:
    """When the client leaves."""

    name: str
    script: str
    is_stream: bool = True
    leaves_after_s: float = 0.3


PHASES = (
    Phase("before headers", "first=60000"),
    Phase("mid-stream", "gap=20,events=3000"),
    Phase("silent stream", "gap=60000,events=3"),
    Phase("non-streaming", "first=60000", is_stream=False),
)
NEVER_S = 5.0
"""An abort that was not seen after so long counts as never seen."""


async def seconds_until_seen(target: Target, upstream: Target, phase: Phase, tag: str) -> float | None:
    """None: never. Raises OSError or RuntimeError if the request was not even taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    script = f"{phase.script},tag={tag}"
    writer.write(request(target.port, prompt_bytes=1024, stream=phase.is_stream, script=script, model=target.model))
    try:
        async with asyncio.timeout(phase.leaves_after_s):
            while said := await reader.read(65536):
                if said.startswith(b"HTTP/1.1 ") and said[9:12] != b"200":
                    raise RuntimeError(said[:100].decode("latin-1"))
            raise RuntimeError("the connection was closed")
    except TimeoutError:
        pass
    left = time.monotonic()
    writer.close()
    while time.monotonic() - left < NEVER_S:
        aborts = json.loads(await asyncio.to_thread(get, upstream.port, "/seen"))["aborts"]
        if tag in aborts:
            return max(0.0, float(aborts[tag]) - left)
        await asyncio.sleep(0.05)
    return None


async def measure(target: Target, upstream: Target, tries: int) -> dict[str, list[float | None]]:
    """Phase -> seconds of each try."""
    found: dict[str, list[float | None]] = {}
    for phase in PHASES:
        tags = [f"{target.port}.{phase.name.replace(' ', '-')}.{number}" for number in range(tries)]
        found[phase.name] = list(
            await asyncio.gather(*(seconds_until_seen(target, upstream, phase, tag) for tag in tags))
        )
    return found


async def passes_bytes(target: Target, upstream: Target) -> bool:
    """Whether a body with odd spacing and unknown fields arrives as the same bytes."""
    body = b'{ "model":"%b" ,\n"messages":[{"role":"user","content":"\\u0041 b","x":1}],"priority":7,"y":null}'
    body %= target.model.encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer none\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    async with asyncio.timeout(30):
        await reader.readuntil(b"\r\n\r\n")
    writer.close()
    arrived = json.loads(await asyncio.to_thread(get, upstream.port, "/seen"))["body"]
    return bool(arrived == [len(body), hashlib.sha256(body).hexdigest()])
