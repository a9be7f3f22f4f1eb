"""Against a real vLLM that was started without `--enable-scale-out`: ids come from /tokenize."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from tests.story.evidence import evidence_of, token_ids
from tests.story.explaining import RECIPE, Desk
from tests.story.upstream import Seen, Step, Upstream, answer

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(300)]

TEXT = "Käse kommt aus Tolm. 奶酪很好。 Say yes."
"""Words of several tokens, and characters of several bytes."""


@pytest.fixture
def upstream(vllm: str) -> Iterator[Upstream]:
    """Forwards everything to the real server, but answers 403 on the render routes, as it would without the flag."""

    async def forward(seen: Seen) -> Sequence[Step]:
        path = seen.target.decode()
        if path.endswith("/render"):
            return [answer(b'{"error": "scale-out is off"}', status="403 Forbidden")]
        return [await asyncio.to_thread(_ask, seen.method.decode(), vllm + path, seen.body)]

    with Upstream() as server:
        server.answers_by(forward)
        yield server


def _ask(method: str, url: str, body: bytes) -> bytes:
    headers = {"content-type": "application/json"}
    reply = httpx.request(method, url, content=body, headers=headers, timeout=120, trust_env=False)
    return answer(reply.content, status=f"{reply.status_code} As It Is")


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_without_the_render_route_ids_come_from_tokenize(
    kind: str, vllm: str, upstream: Upstream, store: Engine, store_path: Path
) -> None:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": TEXT}]} if kind == "chat" else {"prompt": TEXT}
    body: dict[str, Any] = {"model": "smollm2", "max_tokens": 4, "temperature": 0, "ignore_eos": True, **said}
    path = "/v1/chat/completions" if kind == "chat" else "/v1/completions"
    desk = Desk(upstream.url, store, replace(RECIPE, budget=20))
    desk.ask(body, path)
    found = await desk.explanation()
    assert all(check.is_passed for check in desk.checks(found.id))
    desk.close()
    upstream_id = _upstream_id(store)
    stored = token_ids(store_path, upstream_id)
    assert stored["ids_source"] == "tokenize"
    rendered = _rendered(vllm + path, body)
    assert stored["prompt_ids"] == rendered["token_ids"]
    assert stored["offsets"] == rendered["token_offsets"]
    assert len(evidence_of(store_path, upstream_id).segments) >= 2


def _upstream_id(store: Engine) -> str:
    with store.connect() as connection:
        return str(connection.exec_driver_sql("SELECT upstream_id FROM exchanges").scalar_one())


def _rendered(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the real server's render route says, which the worker could not ask."""
    asked = body | {"return_token_offsets": True}
    reply = httpx.post(f"{url}/render", json=asked, timeout=60, trust_env=False).json()
    found: dict[str, Any] = reply[0] if isinstance(reply, list) else reply
    return found
