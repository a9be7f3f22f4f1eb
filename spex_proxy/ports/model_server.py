"""The model server as our background work sees it: a few routes over httpx.

Production never passes here. Every failure becomes UpstreamBusy (ask again later),
UpstreamError (this will not work) or BadReply (it answered something else).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from spex_proxy.facts.errors import BadReply, UpstreamBusy, UpstreamError

RENDER_ROUTES = {
    "chat": "/v1/chat/completions/render",
    "completion": "/v1/completions/render",
    "response": "/v1/responses/render",
    "message": "/v1/messages/render",
}
"""Kind of an exchange -> where its request is rendered to token ids."""
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may be sent again. 500 is among them: vLLM
answers so when a request was aborted by its engine's restart."""
PATIENCE_S = 300.0
"""A batch of long prompts behind production traffic may take minutes on a busy server."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the server says of one model."""

    model: str
    server: str
    """`vllm 0.32.0`."""
    max_model_len: int | None


class ModelServer:
    """An async client of one upstream. Use as a context manager, or close it."""

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        """The pool has no limits of its own: whoever asks bounds itself (httpcore
        loses pool slots when waiting requests are cancelled)."""
        self.base_url, self.api_key = base_url.rstrip("/"), api_key
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/"),
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(PATIENCE_S, connect=5.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
            trust_env=False,
        )

    async def __aenter__(self) -> ModelServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.aclose()

    async def info(self, model: str) -> ModelInfo:
        """Version of the server and limits of a model. Raises UpstreamError if it does not serve it."""
        version = await self._json("GET", "/version")
        listed = await self._json("GET", "/v1/models")
        data = listed.get("data")
        if not isinstance(data, list) or not all(isinstance(card, dict) for card in data):
            raise BadReply("/v1/models answered without a list of models in `data`")
        card = next((card for card in data if card.get("id") == model), None)
        if card is None:
            known = ", ".join(sorted(str(card.get("id")) for card in data)) or "none"
            raise UpstreamError(f"the upstream does not serve the model {model!r} (it serves: {known})")
        longest = card.get("max_model_len")
        return ModelInfo(
            model, f"vllm {version.get('version', 'unknown')}", longest if isinstance(longest, int) else None
        )

    async def render(self, kind: str, body: Mapping[str, Any]) -> Any | None:
        """The rendered prompt of a request's body; None where the route is switched off
        (vLLM without --enable-scale-out answers 403, older servers 404)."""
        response = await self._send("POST", RENDER_ROUTES[kind], body)
        if response.status_code in (403, 404, 405):
            return None
        return self._read(response)

    async def tokenize(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._json("POST", "/tokenize", body)

    async def detokenize(self, model: str, ids: tuple[int, ...]) -> str:
        reply = await self._json("POST", "/detokenize", {"model": model, "tokens": list(ids)})
        if not isinstance(reply.get("prompt"), str):
            raise BadReply("/detokenize answered without `prompt`")
        return str(reply["prompt"])

    async def completions(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        return await self._json("POST", "/v1/completions", body, headers)

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        reply = self._read(await self._send(method, path, body, headers))
        if not isinstance(reply, dict):
            raise BadReply(f"{path} answered {type(reply).__name__} where an object was due")
        return reply

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            where = f"{method} {path} on {self._client.base_url.host}:{self._client.base_url.port or 'default port'}"
            raise UpstreamBusy(f"{where} failed: {type(error).__name__} {error}".rstrip()) from error

    @staticmethod
    def _read(response: httpx.Response) -> Any:
        where = f"{response.request.method} {response.request.url.path}"
        if response.status_code in BUSY:
            raise UpstreamBusy(f"{where} answered {response.status_code}: {_said(response)}")
        if response.status_code != 200:
            raise UpstreamError(f"{where} answered {response.status_code}: {_said(response)}")
        try:
            return response.json()
        except ValueError:
            raise BadReply(
                f"{where} answered 200 with a body that is not JSON ({response.headers.get('content-type', 'no type')})"
            ) from None


def _said(response: httpx.Response) -> str:
    """The first line of the server's error message. Only that: reasons are stored beside the job, where
    erasing content does not reach, and vLLM quotes the request's body from the second line on."""
    try:
        body = response.json()
    except ValueError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    text = message if isinstance(message, str) else response.reason_phrase
    return text.split("\n", 1)[0][:300]
