"""On a real vLLM: a burst of production ends what we ask, which is asked again."""

from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.story.processes import Settings, free_port, running, wait_until
from tests.story.test_real_vllm_scoring import MODEL, load
from tests.story.test_worker_port import counters

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(900)]

ENOUGH_S = 500
STORY = "The lighthouse is old. Ada keeps it. She was born in Tolm. The sea is cold. Where was the keeper born?"


def chat(url: str, text: str, **more: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0}
    reply = httpx.post(
        f"{url}/v1/chat/completions", json=asked | more, headers={"x-spex-explain": "no"}, trust_env=False,
        timeout=ENOUGH_S,
    )  # fmt: skip
    reply.raise_for_status()
    told: dict[str, Any] = reply.json()
    return told


def test_a_burst_ends_what_we_ask_and_nothing_is_lost(vllm: str, empty_store: Path, tmp_path: Path) -> None:
    store, port = Path(shutil.copy(empty_store, tmp_path / "spex.db")), free_port()
    more = {"budget": 40, "target_r2": 1, "explain_rate": 0, "worker_port": port}
    settings = Settings(vllm, f"sqlite:///{store}", more=more)

    def rows(query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(store)) as db:
            return db.execute(query).fetchall()

    with running("up", settings, tmp_path), ThreadPoolExecutor(6) as apps:
        asked = {"model": MODEL, "messages": [{"role": "user", "content": STORY}], "max_tokens": 8, "temperature": 0}
        httpx.post(
            f"{settings.relay_url}/v1/chat/completions", json=asked, headers={"x-spex-explain": "yes"},
            trust_env=False, timeout=ENOUGH_S,
        ).raise_for_status()  # fmt: skip
        wait_until(lambda: load(vllm)["own"] > 0, ENOUGH_S, 0.02)
        answers = list(apps.map(lambda k: chat(settings.relay_url, f"Count to {k}.", max_tokens=8), range(6)))
        assert all(answer["choices"][0]["finish_reason"] for answer in answers)
        wait_until(lambda: rows("SELECT 1 FROM outbox WHERE state IN ('done', 'failed')"), ENOUGH_S, 0.5)
        told = counters(port)
    assert rows("SELECT state, reason FROM outbox") == [("done", None)]
    assert told['spex_gate_batches_total{outcome="aborted"}'] >= 1
    assert told["spex_unanswered_masks_total"] >= 1
    # all 32 masks of five players, the full prompt's repeats among them: each asked until it was answered
    ((masks,),) = rows("SELECT sum(n_masks) FROM evidence_blocks")
    assert masks >= 32
    assert rows("SELECT count(*) FROM explanations") == [(1,)]
