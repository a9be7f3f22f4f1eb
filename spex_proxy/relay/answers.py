"""The answers that are ours and not the upstream's: OpenAI's error shape, and a header that says so."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """An error of the proxy itself."""

    status: int
    code: str
    message: str

    async def send(self, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
        error = {"message": self.message, "type": "proxy_error", "param": None, "code": self.code}
        body = json.dumps({"error": error}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-spex-error", self.code.encode()),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


UNREACHABLE = OwnAnswer(502, "upstream_unreachable", "spex_proxy can't connect to the model server; is it running?")
DISCONNECTED = OwnAnswer(502, "upstream_disconnected", "The model server closed the connection before it answered.")
INVALID = OwnAnswer(502, "upstream_invalid_answer", "What the model server answered is not valid HTTP.")
RELAY_FAULT = OwnAnswer(500, "relay_fault", "spex_proxy failed to relay this request; its log says why.")
NO_WEBSOCKETS = OwnAnswer(
    501, "websocket_not_relayed", "WebSockets are not relayed yet; connect to the model server itself."
)
TARGET = OwnAnswer(
    501, "target_not_relayed", "Only request targets that begin with a slash are relayed, not `OPTIONS *`."
)


def answer_for(error: Exception) -> OwnAnswer:
    """Why no answer could be had. The one place where the upstream client's exceptions are read."""
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError)):
        return UNREACHABLE
    if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
        return DISCONNECTED
    if isinstance(error, aiohttp.ClientError):
        return INVALID
    return RELAY_FAULT
