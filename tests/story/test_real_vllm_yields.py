"""On a real vLLM: production goes before masks that wait, and a burst of it ends what we ask, which is asked again."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.story.processes import Settings, free_port, running, wait_until
from tests.story.test_real_vllm_scoring import MODEL, body, load
from tests.story.test_worker_port import counters

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(900)]

ENOUGH_S = 500
PLAYERS = 8
WAITING = 250
"""Masks that are in the engine at once, no two alike (their bits count up): far more than one step of it takes."""
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


def test_production_goes_before_masks_that_wait(vllm: str) -> None:
    """Its one token comes while most of what was asked before it is still unanswered; in the order of arrival it would
    have been the last."""
    ids = np.random.Generator(np.random.PCG64(2)).integers(100, 20_000, 4 + 12 * PLAYERS)
    asked = body(
        ids=ids.tolist(),
        segments=[[at, at + 12] for at in range(4, len(ids), 12)],
        masks=base64.b64encode(bytes(range(WAITING))).decode("ascii"),
        count=WAITING, in_flight=WAITING, cache_salt="spex-priority", warm=False,
    )  # fmt: skip
    answered = 0
    with ThreadPoolExecutor(1) as production:
        with httpx.stream("POST", f"{vllm}/v1/spex/score", json=asked, trust_env=False, timeout=ENOUGH_S) as reply:
            lines = reply.iter_lines()
            assert "value" in json.loads(next(lines))
            asking = production.submit(chat, vllm, "Say yes.")
            while not asking.done():
                next(lines)
                answered += 1
        assert asking.result()["usage"]["completion_tokens"] == 1
    assert answered < 0.8 * WAITING
    wait_until(lambda: load(vllm)["own"] == 0, ENOUGH_S)


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
