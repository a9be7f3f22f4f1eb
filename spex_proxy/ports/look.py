"""A look at an address: what answers there, without believing anything about it. For `doctor`.

Unlike `model_server`, a refusal is a fact here and no error; nothing raises.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import httpx

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
    """Asks single questions over HTTP. Use as a context manager."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._client = httpx.AsyncClient(timeout=patience_s, trust_env=False, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, url: str, api_key: str | None = None) -> Look:
        return await self._ask("GET", url, {"authorization": f"Bearer {api_key}"} if api_key else {})

    async def post(self, url: str, body: bytes, content_type: str) -> Look:
        return await self._ask("POST", url, {"content-type": content_type}, body)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Look:
        started = time.perf_counter()
        try:
            reply = await self._client.request(method, url, headers=headers, content=body)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return Silence(f"{type(error).__name__} {error}".strip())
        return Answer(
            status=reply.status_code,
            headers={name.lower(): value for name, value in reply.headers.items()},
            body=reply.content,
            answered_at=datetime.now(UTC),
            seconds=time.perf_counter() - started,
        )
