"""A model server with vLLM's capture middleware, on a real uvicorn: an ASGI application that says what vLLM says."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from spex_proxy_vllm.board import Board
from spex_proxy_vllm.capture import App, Capture, Message, Receive, Send
from spex_proxy_vllm.sender import Sender, Way
from tests.story.processes import free_port, wait_until

KEY = "between us"
APP_KEY = b"Bearer app"
WORDS = ("It", " is", " so", ".")


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    told = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


async def model(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """vLLM behind its key: chat, streamed or not."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if dict(scope["headers"]).get(b"authorization") != APP_KEY:
        await _say(send, 401, "application/json", [b'{"error": {"message": "Unauthorized"}}'])
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if json.loads(body).get("stream"):
        events = [chunk({"content": word}) for word in WORDS]
        await _say(send, 200, "text/event-stream; charset=utf-8", [*events, chunk({}, "stop"), b"data: [DONE]\n\n"])
    else:
        said = {"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        told = {"id": "chatcmpl-8", "object": "chat.completion", "model": "m", "choices": [said], "usage": usage}
        await _say(send, 200, "application/json", [json.dumps(told).encode()])


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _say(send: Callable[[Message], Awaitable[None]], status: int, kind: str, pieces: list[bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0.001)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@contextmanager
def served(app: App) -> Iterator[str]:
    """Its base URL, until the block ends in good order."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="warning", lifespan="on", ws="none", log_config=None)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="model-under-test")
    thread.start()
    try:
        wait_until(lambda: server.started, 30, 0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def captured(url: str, board: Board, key: str = KEY) -> Iterator[str]:
    """The model with the middleware outermost, as vLLM puts it; exchanges are handed over to `url`."""
    with served(Capture(model, Sender(Way(url, key)), board)) as at:
        yield at
