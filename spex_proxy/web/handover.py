"""Where vLLM's capture middleware hands over what passed it (flows/handover.py). Not part of the JSON API.

It writes what nobody here has seen pass, so it takes nothing without the key; without one set, there is no such path.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from spex_proxy.flows.handover import Outcome
from spex_proxy.web.errors import error_response
from spex_proxy.wire.handed import Handed, read_handed

PATH = "/spex/handover"


@dataclass(frozen=True, slots=True)
class HandoverDoor:
    """What stands behind it."""

    key: bytes = field(repr=False)
    most_bytes: int
    take: Callable[[Handed], Awaitable[Outcome]]
    """What became of it; raises RuntimeError while the relay ends."""


def make_handover_router(door: HandoverDoor) -> APIRouter:
    router = APIRouter()

    @router.post(PATH, include_in_schema=False)
    async def handover(request: Request) -> Response:
        shown = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(shown, b"Bearer " + door.key):
            return error_response(401, "wrong_key", "the key of SPEX_HANDOVER_KEY is wanted, as a bearer token")
        payload = bytearray()
        async for piece in request.stream():
            payload += piece
            if len(payload) > door.most_bytes:
                return error_response(413, "too_large", f"more than {door.most_bytes} bytes (SPEX_MAX_BODY_BYTES)")
        handed = read_handed(bytes(payload))
        try:
            outcome = await door.take(handed)
        except RuntimeError:
            return error_response(503, "stopping", "the relay is being stopped; hand it over again")
        return JSONResponse({"outcome": outcome})

    return router
