"""Telling an address something: one signed POST. Follows no redirects, reads no more of the answer than its status.

The address comes from the operator's rules file, never from a request. It is not checked against private networks:
guardrails and alerting stand there (docs/flags.md says what to mind).
"""

from __future__ import annotations

import hmac
import time
from types import TracebackType

import httpx

TIMEOUT_S = 10.0
SIGNATURE = "x-spex-signature"
"""`t=<seconds since 1970>,v1=<hex>`: HMAC-SHA256 of `<t>.<body>` under SPEX_WEBHOOK_SECRET."""


def signature(secret: bytes, body: bytes, at: int) -> str:
    return f"t={at},v1={hmac.digest(secret, str(at).encode() + b'.' + body, 'sha256').hex()}"


class Webhooks:
    """A client of its own: it carries no key and shares no connection with the model server's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    async def __aenter__(self) -> Webhooks:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def send(self, url: str, body: bytes, key: str) -> str | None:
        """None if it was taken (any 2xx), else why not. `key` is the same at every try."""
        if not self._secret:
            return "SPEX_WEBHOOK_SECRET is not set for the worker, so nothing can be signed"
        headers = {
            "content-type": "application/json",
            "idempotency-key": key,
            SIGNATURE: signature(self._secret, body, int(time.time())),
        }
        try:
            async with self._client.stream("POST", url, content=body, headers=headers) as reply:
                return None if reply.is_success else f"answered {reply.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__
