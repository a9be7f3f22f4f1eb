"""A look at an address: what answers there, without believing anything about it. For `doctor`.

Unlike `model_server`, a refusal is a fact here and no error; nothing raises.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from spex_proxy.facts.errors import SpexError
from spex_proxy.ports.reach import client_for

PATIENCE_S = 10.0
"""These routes answer at once, or the server is in trouble."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an address answered, whatever the status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    answered_at: datetime
    """By our clock."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer, and why."""

    reason: str


Look = Answer | Silence


class Looker:
    """Asks single questions over HTTP, of any base URL (`ports.reach`). Use as a context manager."""

    def __init__(self, patience_s: float = PATIENCE_S, ca: Path | None = None) -> None:
        self._patience_s = patience_s
        self._ca = ca
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def get(self, base_url: str, path: str, api_key: str | None = None) -> Look:
        return await self._ask("GET", base_url, path, {"authorization": f"Bearer {api_key}"} if api_key else {})

    async def post(self, base_url: str, path: str, body: bytes, content_type: str) -> Look:
        return await self._ask("POST", base_url, path, {"content-type": content_type}, body)

    def _client(self, base_url: str) -> httpx.AsyncClient:
        if base_url not in self._clients:
            self._clients[base_url] = client_for(base_url, self._ca, timeout=self._patience_s, follow_redirects=False)
        return self._clients[base_url]

    async def _ask(
        self, method: str, base_url: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Look:
        started = time.perf_counter()
        try:
            reply = await self._client(base_url).request(method, path, headers=headers, content=body)
        except (httpx.HTTPError, httpx.InvalidURL, SpexError, ValueError) as error:
            return Silence(f"{type(error).__name__} {error}".strip())
        return Answer(
            status=reply.status_code,
            headers={name.lower(): value for name, value in reply.headers.items()},
            body=reply.content,
            answered_at=datetime.now(UTC),
            seconds=time.perf_counter() - started,
        )
