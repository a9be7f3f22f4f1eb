"""The capture middleware in a real vLLM: apps ask vLLM itself, what it answered is stored and explained, once."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AuthenticationError, OpenAI

from deploy.demo.vllm_cpu import running_vllm
from tests.story.processes import Settings, running, wait_until

pytestmark = [
    pytest.mark.real_vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif("SPEX_TEST_VLLM_URL" in os.environ, reason="the middleware belongs to a server of its own"),
]

MODEL = "smollm2"
ENOUGH_S = 400
CAPTURE = ("--middleware", "spex_proxy_vllm.capture.Capture", "--api-key", "app")


def rows(store: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(store)) as db:
        return db.execute(query).fetchall()


def test_what_vllm_answered_is_stored_and_explained_and_our_own_questions_are_not(
    empty_store: Path, tmp_path: Path
) -> None:
    store = Path(shutil.copy(empty_store, tmp_path / "spex.db"))
    settings = Settings("http://127.0.0.1:9", f"sqlite:///{store}")
    handing = {"SPEX_HANDOVER_KEY": "k", "SPEX_HANDOVER_URL": settings.admin_url}
    with running_vllm(extra=CAPTURE, environment=handing) as vllm:
        settings.upstream = vllm
        # `completions` asks the route that apps ask as well
        settings.more = {"handover_key": "k", "upstream_api_key": "app", "scorer": "completions", "budget": 16,
                         "target_r2": 1}  # fmt: skip
        with running("up", settings, tmp_path) as house:
            asked: dict[str, Any] = {
                "model": MODEL, "max_tokens": 6, "temperature": 0,
                "messages": [{"role": "user", "content": "Ada was born in Tolm. The sea is cold. Where was Ada born?"}],
            }  # fmt: skip
            client = OpenAI(base_url=f"{vllm}/v1", api_key="app", max_retries=0)
            text = "".join(
                chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True)
            )
            with pytest.raises(AuthenticationError):
                OpenAI(base_url=f"{vllm}/v1", api_key="wrong", max_retries=0).chat.completions.create(**asked)
            wait_until(lambda: rows(store, "SELECT 1 FROM outbox WHERE state IN ('done', 'failed')"), ENOUGH_S, 0.5)
            load = httpx.get(
                f"{vllm}/v1/spex/load", headers={"authorization": "Bearer app"}, trust_env=False, timeout=60
            ).json()
            assert load["production"] == {"in_flight": 0, "awaiting_first": 0}
            assert house.metric("handed_over_total", '{outcome="taken"}') == 1
            assert house.metric("handed_over_total") == 1  # no masked query, and nothing that was refused
            assert house.metric("handover_lost_total") == 0
    assert text
    assert rows(store, "SELECT state, reason FROM outbox") == [("done", None)]
    assert rows(store, "SELECT count(*) FROM exchanges") == [(1,)]
    assert rows(store, "SELECT sum(n_masks) >= 8 FROM evidence_blocks") == [(1,)]
