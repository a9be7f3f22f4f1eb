"""The relay's self-test on a person's own stack: direct against relayed, by the same requests.

The relays that are tested are started for this, on loopback, by the wiring; here is what is asked of them. The
model writes some 500 tokens in all, at no more than two requests at a time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from spex_proxy.facts.finding import Finding
from spex_proxy.flows import diagnose_relay as diagnose
from spex_proxy.ports.look import Answer, Look, Silence
from spex_proxy.ports.passage import Passage
from spex_proxy.ports.reach import client_for

ROUNDS = 60
"""Requests of each kind for the overhead."""
ABORTS = 3
SEEN_S = 5.0
"""An abort that has not arrived by then never will."""
PATIENCE_S = 60.0
CHAT = "/v1/chat/completions"

Clients = dict[str, httpx.AsyncClient]
"""By base URL."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Base URLs of the server itself, of a relay that captures nothing, and of one that captures all."""

    direct: str = field(repr=False)
    off: str
    on: str
    model: str | None
    """None: what needs a model is not tried."""
    api_key: str | None = field(repr=False)
    passage: Passage | None
    """Between the relay `on` and the server; None: aborts are not tried."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    ca: Path | None = None
    """As in `ports.reach`."""

    async def examine(self) -> AsyncIterator[Finding]:
        """Findings, one by one; the last is the verdict."""
        found: list[Finding] = []
        async for finding in self._everything():
            told = finding.found
            for secret in self.secrets:
                told = told.replace(secret, "***")
            found.append(replace(finding, found=told))
            yield found[-1]
        yield diagnose.verdict(found)

    async def _everything(self) -> AsyncIterator[Finding]:
        headers = {"content-type": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        async with AsyncExitStack() as stack:
            clients: Clients = {}
            for url in dict.fromkeys((self.direct, self.off, self.on)):
                clients[url] = await stack.enter_async_context(
                    client_for(url, self.ca, timeout=PATIENCE_S, headers=headers)
                )
            if self.model is not None:
                yield await self._same(clients, "relay: JSON", _body(self.model))
                yield await self._same(clients, "relay: SSE", _body(self.model, stream=True))
            yield await self._same(clients, "relay: errors", b'{"not json')
            if self.model is not None:
                yield diagnose.aborts(await self._aborts(clients))
                yield diagnose.overhead(await self._times(clients))

    async def _same(self, clients: Clients, name: str, body: bytes) -> Finding:
        looks = [await _ask(clients, url, body) for url in (self.direct, self.on, self.direct)]
        return diagnose.same(name, *looks)

    async def _aborts(self, clients: Clients) -> list[float | None]:
        """The client leaves after the first bytes of a long stream."""
        assert self.model is not None
        body, seen = _body(self.model, stream=True, max_tokens=400, min_tokens=400), list[float | None]()
        for _ in range(ABORTS if self.passage is not None else 0):
            assert self.passage is not None
            while not self.passage.left.empty():
                self.passage.left.get_nowait()
            try:
                async with clients[self.on].stream("POST", CHAT, content=body) as reply:
                    await anext(reply.aiter_raw())
                    if reply.status_code != 200:
                        return []
            except (httpx.HTTPError, StopAsyncIteration):
                return []
            left = time.perf_counter()
            try:
                seen.append(max(0.0, await asyncio.wait_for(self.passage.left.get(), SEEN_S) - left))
            except TimeoutError:
                seen.append(None)
        return seen

    async def _times(self, clients: Clients) -> Mapping[str, list[float]]:
        """In turns, so that a busy moment of the server meets all three."""
        assert self.model is not None
        urls = {"direct": self.direct, "off": self.off, "on": self.on}
        times: dict[str, list[float]] = {name: [] for name in urls}
        for number in range(ROUNDS + 1):
            for name, url in urls.items():
                look = await _ask(clients, url, _body(self.model, max_tokens=1))
                if isinstance(look, Answer) and look.status == 200 and number:  # the first opens connections
                    times[name].append(look.seconds)
        return times


def _body(model: str, **more: Any) -> bytes:
    asked = {"messages": [{"role": "user", "content": "Say yes."}], "temperature": 0, "seed": 0, "max_tokens": 8}
    return json.dumps({"model": model} | asked | more).encode()


async def _ask(clients: Clients, url: str, body: bytes) -> Look:
    """The bytes as they came, not unpacked."""
    begun = time.perf_counter()
    try:
        async with clients[url].stream("POST", CHAT, content=body) as reply:
            data = b"".join([piece async for piece in reply.aiter_raw()])
    except httpx.HTTPError as error:
        return Silence(f"{type(error).__name__} {error}".strip())
    headers = {name.lower(): value for name, value in reply.headers.items()}
    return Answer(reply.status_code, headers, data, datetime.now(UTC), time.perf_counter() - begun)
