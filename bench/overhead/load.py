"""The load: raw connections on one event loop, requests made beforehand, every answer looked at."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

_MARK = re.compile(rb"@([0-9]+);")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked of every target."""

    name: str
    title: str
    connections: int = 1
    prompt_bytes: int = 1024
    seconds: float = 1.5
    """As long as requests are begun; 0: `each` requests on each connection."""
    each: int = 0
    rate: float = 0.0
    """Requests begun a second, on whichever connection is free; 0: each connection begins the next at once."""
    events: int = 0
    """Of a stream; 0 asks for a plain answer."""
    gap_ms: float = 10.0

    @property
    def spread_s(self) -> float:
        """Streams begin one after the other, over the length of one: servers' clients do not march in step."""
        return self.events * self.gap_ms / 1000


@dataclass(slots=True)
class Seen:
    """Of one round; times in nanoseconds."""

    latency: list[int] = field(default_factory=list)
    first_event: list[int] = field(default_factory=list)
    delay: list[int] = field(default_factory=list)
    """From an event's writing by the upstream to its reading here."""
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0


def request(port: int, *, prompt_bytes: int, stream: bool = False, script: str = "", model: str = "scripted") -> bytes:
    """A chat request of about so many bytes of prompt, the script at its beginning."""
    words = (f"script:{script};" if script else "") + " word" * (prompt_bytes // 5 + 1)
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": words[:prompt_bytes]}]}
    body = json.dumps(asked | {"max_tokens": 120, "temperature": 0} | ({"stream": True} if stream else {})).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
        b"accept: */*\r\nauthorization: Bearer none\r\nuser-agent: bench\r\ncontent-length: %d\r\n\r\n%b"
        % (port, len(body), body)
    )


class Line(asyncio.Protocol):
    """One connection: sends, reads the answer to its end, says so."""

    def __init__(self, round_: Round) -> None:
        self._round = round_
        self._answer = b""
        self._length: int | None = None
        """Of the whole answer; -1: until the last chunk; None: its head is not complete."""
        self._body_at = 0
        self._scanned = 0
        self._sent_at = 0
        self.is_busy = False
        self.begun = 0
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_open = True

    def send(self, data: bytes) -> None:
        self.begun += 1
        self.is_busy = True
        self._answer, self._length, self._scanned = b"", None, 0
        self._sent_at = time.monotonic_ns()
        self._transport.write(data)

    def close(self) -> None:
        self.is_open = False
        self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if self.is_open:
            self.is_open = False
            self._round.broke(self, "the connection was closed")

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._answer += data
        if self._length is None and (end := self._answer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._answer, 0, end + 2)
            self._body_at = end + 4
            self._length = self._body_at + int(found[1]) if found else -1
            if not self._answer.startswith(b"HTTP/1.1 200"):
                self._round.seen.errors.append(self._answer[:160].decode("latin-1"))
        for mark in _MARK.finditer(self._answer, self._scanned):
            if not self._scanned:
                self._round.seen.first_event.append(now - self._sent_at)
            self._scanned = mark.end()
            self._round.seen.delay.append(now - int(mark[1]))
        if self._length == -1:  # a head may end like a last chunk: with a 0
            is_over = self._answer.endswith(_LAST_CHUNK, self._body_at)
        else:
            is_over = self._length is not None and len(self._answer) >= self._length
        if is_over and self.is_busy:
            self.is_busy = False
            self._round.seen.latency.append(now - self._sent_at)
            self._round.answered(self)


class Round:
    """One scenario on one target, once. `open()`, then `run()`, then `close()`."""

    def __init__(self, scenario: Scenario, port: int, model: str = "scripted") -> None:
        self._scenario, self._port = scenario, port
        self._loop = asyncio.get_running_loop()
        script = f"gap={scenario.gap_ms:g},events={scenario.events},clock=1"
        is_stream = scenario.events > 0
        size = scenario.prompt_bytes
        self._request = request(port, prompt_bytes=size, stream=is_stream, script=script, model=model)
        self._warming = request(port, prompt_bytes=100, model=model)
        self._lines: list[Line] = []
        self._free: deque[Line] = deque()
        self._is_warming = True
        self._until = 0
        self._paced = 0
        self._done = asyncio.Event()
        self.seen = Seen()

    async def open(self) -> None:
        """Connect, and have every connection serve once: what is measured are connections that are used again."""
        for _ in range(self._scenario.connections):
            _, line = await self._loop.create_connection(lambda: Line(self), "127.0.0.1", self._port)
            self._lines.append(line)
        for line in self._lines:
            line.send(self._warming)
        await self._wait(30)
        self._is_warming = False
        errors, self.seen = self.seen.errors, Seen()
        self.seen.errors = errors

    async def run(self) -> None:
        scenario = self._scenario
        for line in self._lines:
            line.begun = 0
        gc.collect()
        gc.disable()
        begun = time.monotonic()
        self._until = time.monotonic_ns() + int(scenario.seconds * 1e9)
        self._done.clear()
        if scenario.rate:
            self._free.extend(line for line in self._lines if line.is_open)
            self._pace(begun)
        else:
            for number, line in enumerate(self._lines):
                self._loop.call_later(scenario.spread_s * number / len(self._lines), self._next, line)
        await self._wait(scenario.seconds + scenario.each * scenario.spread_s * 3 + 30)
        self.seen.seconds = time.monotonic() - begun
        gc.enable()

    def close(self) -> None:
        for line in self._lines:
            line.close()

    def answered(self, line: Line) -> None:
        if self._is_warming or not self._next(line):
            self._look()

    def broke(self, line: Line, why: str) -> None:
        line.is_busy = False
        self.seen.errors.append(why)
        self._look()

    def _next(self, line: Line) -> bool:
        """Whether another request was begun on it."""
        scenario = self._scenario
        if scenario.rate:
            self._free.append(line)
            return False
        goes_on = line.begun < scenario.each if scenario.each else time.monotonic_ns() < self._until
        if goes_on and line.is_open:
            line.send(self._request)
        return goes_on and line.is_open

    def _pace(self, begun: float) -> None:
        due = (time.monotonic() - begun) * self._scenario.rate
        while self._paced < due and self._free:
            self._paced += 1
            self._free.popleft().send(self._request)
        if time.monotonic_ns() < self._until:
            self._loop.call_later(0.001, self._pace, begun)
        else:
            self._look()

    def _look(self) -> None:
        is_late = self._is_warming or bool(self._scenario.each) or time.monotonic_ns() >= self._until
        all_begun = (
            not self._scenario.each
            or self._is_warming
            or all(line.begun >= self._scenario.each or not line.is_open for line in self._lines)
        )
        if is_late and all_begun and not any(line.is_busy for line in self._lines):
            self._done.set()

    async def _wait(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._done.wait()
        except TimeoutError:
            self.seen.errors.append(f"not over within {limit_s:g} s")
        self._done.clear()
