"""The endpoint plugin: three routes under vLLM's own API key.

POST /v1/spex/score   masks -> log-probabilities, streamed (asked.py, scoring.py)
POST /v1/spex/ablate  masks of attention heads -> the same; off unless the server is started for it (ablating.py)
GET  /v1/spex/load    which plugin this is, and the engine's load after its last step (board.py)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import JSONResponse, Response

from spex_proxy_vllm import PROTOCOL, __version__
from spex_proxy_vllm.ablating import prepared
from spex_proxy_vllm.asked import Asked, BadRequest, check, read
from spex_proxy_vllm.board import BOARD
from spex_proxy_vllm.heads import Refused, read_heads
from spex_proxy_vllm.presence import PRESENCE, Watch
from spex_proxy_vllm.scoring import Answer, Engine, lines

STATE = "spex_engine_client"
"""Where the application keeps what the routes need."""
ABLATION = "spex_ablation"


class SpexPlugin:
    """What vLLM makes of the entry point."""

    name = "spex"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        router = APIRouter()
        router.add_api_route("/v1/spex/score", score, methods=["POST"])
        router.add_api_route("/v1/spex/ablate", ablate, methods=["POST"])
        router.add_api_route("/v1/spex/load", load, methods=["GET"])
        app.include_router(router)
        app.add_middleware(Watch)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        setattr(state, STATE, engine_client)
        BOARD.yields = (args.api_server_count or args.data_parallel_size or 1) == 1
        setattr(state, ABLATION, await prepared(engine_client))


async def load(request: Request) -> Response:
    client = getattr(request.app.state, STATE, None)
    about = {"plugin": __version__, "protocol": PROTOCOL, "runner": None if client is None else _runner(client)}
    seen = {"in_flight": PRESENCE.in_flight} if BOARD.yields else {}
    return JSONResponse(about | BOARD.read() | seen)


async def score(request: Request) -> Response:
    return await answer(request, read)


async def ablate(request: Request) -> Response:
    """Like `score`, with heads in place of segments; refused by a server that was not started for it."""
    ready = getattr(request.app.state, ABLATION, Refused("this server has no engine"))
    if isinstance(ready, Refused):
        return _refused(400, ready.why)
    return await answer(request, lambda body: read_heads(body, ready))


async def answer(request: Request, reader: Callable[[bytes], Asked]) -> Response:
    client = getattr(request.app.state, STATE, None)
    if client is None:
        return _refused(503, "this server has no engine")
    try:
        asked = reader(await request.body())
        config = client.model_config
        check(asked, longest_prompt=config.max_model_len, vocabulary=config.get_vocab_size())
    except BadRequest as error:
        return _refused(400, str(error))
    models = request.app.state.openai_serving_models
    lora_request = models.lora_requests.get(asked.model)
    if lora_request is None and not models.is_base_model(asked.model):
        return _refused(404, f"the model {asked.model!r} is not served")
    if client.errored:
        return _refused(503, "the engine is dead")
    return Stream(lines(asked, Counted(_in_process(client, lora_request)), PRESENCE))


class Counted:
    """An engine whose masks in flight are on the board."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ask(self, prompt: list[int], asked: Asked, *, whole: bool) -> Answer:
        BOARD.own += 1
        try:
            return await self._engine.ask(prompt, asked, whole=whole)
        finally:
            BOARD.own -= 1


class Stream(Response):
    """Lines as they come. A client that leaves ends the stream at once, and with it what is in flight."""

    media_type = "application/x-ndjson"

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._content = content

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        work = asyncio.ensure_future(self._pump(send))
        gone = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if work.done() and not work.cancelled():
            work.result()

    async def _pump(self, send: Callable[[Any], Awaitable[None]]) -> None:
        async with aclosing(self._content) as content:  # type: ignore[type-var]  # an async generator
            async for line in content:
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _refused(status: int, message: str) -> Response:
    """In the shape of vLLM's own errors."""
    kind = {400: "BadRequestError", 404: "NotFoundError"}.get(status, "ServiceUnavailableError")
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)


def _in_process(client: Any, lora_request: Any) -> Engine:
    from spex_proxy_vllm.engine import InProcess  # noqa: PLC0415 - the one module that needs vLLM to be there

    return InProcess(client, lora_request)


def _runner(client: Any) -> str:
    from spex_proxy_vllm.engine import runs_v2  # noqa: PLC0415 - likewise

    return "v2" if runs_v2(client) else "v1"
