"""The model server as our background work sees it: a few routes over httpx.

Production never passes here. Every failure becomes UpstreamBusy (ask again later),
UpstreamError (this will not work) or BadReply (it answered something else).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from spex_proxy.facts.errors import BadReply, UpstreamBusy, UpstreamError
from spex_proxy.ports.reach import client_for

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

LOOK_S = 2.0
"""A replica that does not say its version so soon is not asked for an explanation."""


OTHER = "unknown server"
"""Some server that is not vLLM."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the server says of one model."""

    model: str
    server: str
    """`vllm 0.32.0`, or OTHER."""
    max_model_len: int | None


class ModelServer:
    """An async client of one upstream. Use as a context manager, or close it."""

    def __init__(
        self, base_url: str, api_key: str | None = None, ca: Path | None = None, marks: Mapping[str, str] | None = None
    ) -> None:
        """`base_url` may be `unix:/path`; `ca` as in `ports.reach`; `marks` are headers of all that is asked.

        The pool has no limits of its own: whoever asks bounds itself (httpcore
        loses pool slots when waiting requests are cancelled). Raises SettingsError for a bad `ca`."""
        self.base_url, self.api_key, self.ca, self.marks = base_url, api_key, ca, dict(marks or {})
        self._client = client_for(
            base_url,
            ca,
            httpx.Limits(max_connections=None, max_keepalive_connections=8),
            headers=self.marks | ({"authorization": f"Bearer {api_key}"} if api_key else {}),
            timeout=httpx.Timeout(PATIENCE_S, connect=5.0),
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
        server = await self._version()
        data = await self._models()
        card = next((card for card in data if card.get("id") == model), None)
        if card is None:
            known = ", ".join(sorted(str(card.get("id")) for card in data)) or "none"
            raise UpstreamError(f"the upstream does not serve the model {model!r} (it serves: {known})")
        longest = card.get("max_model_len")
        return ModelInfo(model, server, longest if isinstance(longest, int) else None)

    async def _version(self) -> str:
        """vLLM tells its own; another server that speaks OpenAI's language has no such route."""
        response = await self._send("GET", "/version", None)
        if response.status_code in (404, 405):
            return OTHER
        version = self._read(response)
        if not isinstance(version, dict):
            raise BadReply(f"/version answered {type(version).__name__} where an object was due")
        return f"vllm {version.get('version', 'unknown')}"

    async def first_model(self) -> str:
        """Raises UpstreamError if none is served."""
        served = await self._models()
        if not served or not isinstance(served[0].get("id"), str):
            raise UpstreamError("the upstream serves no model")
        return str(served[0]["id"])

    async def _models(self) -> list[dict[str, Any]]:
        listed = await self._json("GET", "/v1/models")
        data = listed.get("data")
        if not isinstance(data, list) or not all(isinstance(card, dict) for card in data):
            raise BadReply("/v1/models answered without a list of models in `data`")
        return data

    async def is_up(self) -> bool:
        """Whether anything but an error of the way there comes back, soon."""
        try:
            response = await self._client.get("/version", timeout=LOOK_S)
        except httpx.HTTPError:
            return False
        return response.status_code not in BUSY

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

    async def generate(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        return await self._json("POST", "/inference/v1/generate", body, headers)

    async def refusal(self, body: Mapping[str, Any]) -> str | None:
        """Why `/inference/v1/generate` does not take `body`, in the server's words; None if it does."""
        response = await self._send("POST", "/inference/v1/generate", body)
        if response.status_code == 200:
            return None
        if response.status_code in BUSY:
            self._read(response)
        return f"{response.status_code}: {_said(response)}"

    async def plugin(self) -> dict[str, Any] | None:
        """What our plugin says of itself and of the engine's load; None where it is not loaded."""
        response = await self._send("GET", "/v1/spex/load", None)
        if response.status_code in (404, 405):
            return None
        reply = self._read(response)
        if not isinstance(reply, dict):
            raise BadReply(f"/v1/spex/load answered {type(reply).__name__} where an object was due")
        return reply

    async def score(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> AsyncGenerator[bytes]:
        """Lines of our plugin's answer, as they come. Closing it early makes the server drop what is not answered."""
        path = "/v1/spex/score"
        try:
            async with self._client.stream("POST", path, json=body, headers=headers) as response:
                if response.status_code != 200:
                    await response.aread()
                    self._read(response)
                async for line in response.aiter_lines():
                    yield line.encode()
        except httpx.HTTPError as error:
            raise UpstreamBusy(self._failed("POST", path, error)) from error

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
            raise UpstreamBusy(self._failed(method, path, error)) from error

    def _failed(self, method: str, path: str, error: Exception) -> str:
        where = f"{method} {path} on {self._client.base_url.host}:{self._client.base_url.port or 'default port'}"
        return f"{where} failed: {type(error).__name__} {error}".rstrip()

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
