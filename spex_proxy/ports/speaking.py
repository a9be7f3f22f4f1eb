"""The model asked as an app asks it: a whole answer to a whole request, through the `openai` client.

The body is sent as it is made (wire/removal.py): it is a client's own, whatever fields that has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spex_proxy.facts.errors import UpstreamBusy, UpstreamError
from spex_proxy.facts.exchange import ExchangeKind
from spex_proxy.ports.model_server import BUSY, PATIENCE_S, ModelServer
from spex_proxy.ports.reach import tls_context, unix_path

PATHS: Mapping[ExchangeKind, str] = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "response": "/responses",
    "message": "/messages",
}
PRIORITY_HEADER = "X-Vllm-Priority"
"""For the kinds whose body has no field for it."""


async def speak(
    server: ModelServer,
    kind: ExchangeKind,
    body: Mapping[str, Any],
    priority: int,
    trace: Mapping[str, str] | None = None,
) -> bytes:
    """The answer's body, as the server sent it; `trace` are headers that carry the trace context.

    Raises UpstreamBusy (ask again later) or UpstreamError (this will not work).
    """
    import openai  # noqa: PLC0415 - half a second and 40 MB, for the workers that are asked for a re-test

    asked = f"POST /v1{PATHS[kind]}"
    if unix_path(server.base_url) is not None:
        raise UpstreamError(f"{asked}: the openai client reaches no unix socket; give the model server a port")
    async with openai.AsyncOpenAI(
        base_url=f"{server.base_url.rstrip('/')}/v1",
        api_key=server.api_key or "none",
        max_retries=0,
        timeout=PATIENCE_S,
        http_client=openai.DefaultAsyncHttpxClient(
            trust_env=False, verify=tls_context(server.ca) if server.base_url.startswith("https:") else False
        ),
    ) as client:
        try:
            headers = {**server.marks, **(trace or {}), PRIORITY_HEADER: str(priority)}
            answer = await client.post(PATHS[kind], cast_to=str, body=dict(body), options={"headers": headers})
        except openai.APIStatusError as error:
            reason = f"{asked} answered {error.status_code}: {_said(error.body)}"
            raise (UpstreamBusy if error.status_code in BUSY else UpstreamError)(reason) from error
        except openai.APIConnectionError as error:
            cause = type(error.__cause__ or error).__name__
            raise UpstreamBusy(f"{asked}: the model server can't be reached ({cause})") from error
        return answer.encode()


def _said(body: object) -> str:
    """The first line of the server's message. Not the error's own words: they hold the whole reply, which may
    quote the request, and a reason is stored where erasing content does not reach."""
    message = body.get("message") if isinstance(body, dict) else None
    return message.split("\n", 1)[0][:300] if isinstance(message, str) else "no reason was given"
