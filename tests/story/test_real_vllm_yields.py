"""On a real vLLM: a burst of production ends what we ask, which is asked again; and production goes first."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from spex_proxy.facts.evidence import Probe
from spex_proxy.wire.engine import Layout, score_body
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
    assert told["spex_unanswered_masks_total"] >= 1  # ended by the server itself, or by the gate as no pause came
    # all 32 masks of five players, the full prompt's repeats among them: each asked until it was answered
    ((masks,),) = rows("SELECT sum(n_masks) FROM evidence_blocks")
    assert masks >= 32
    assert rows("SELECT count(*) FROM explanations") == [(1,)]


MASKS, SEGMENTS, SEGMENT = 96, 10, 10
"""The second server takes eight requests at once, so that most of these wait."""


def answered_before_production(vllm: str, priority: int) -> int:
    """Masks that are answered between a production request's coming, behind a queue of them, and its answer."""
    rng = np.random.default_rng(3)
    ids = rng.integers(100, 20_000, (SEGMENTS, SEGMENT))
    probes = [Probe(tuple(ids[mask].ravel().tolist()), (300,), "") for mask in rng.random((MASKS, SEGMENTS)) < 0.5]
    ends = range(0, ids.size, SEGMENT)
    layout = Layout(tuple(ids.ravel().tolist()), tuple((at, at + SEGMENT) for at in ends))
    salt = f"spex-first-{priority}"
    asked = score_body(
        MODEL, layout, probes, priority=priority, cache_salt=salt, in_flight=MASKS, warm=False, yields=False
    )
    answered: list[str] = []
    first, done = threading.Event(), threading.Event()

    def ask() -> None:
        try:
            with httpx.stream("POST", f"{vllm}/v1/spex/score", json=asked, trust_env=False, timeout=ENOUGH_S) as reply:
                reply.raise_for_status()
                for line in reply.iter_lines():
                    answered.append(line)
                    first.set()
                    if done.is_set():
                        return
        finally:
            first.set()

    with ThreadPoolExecutor(1) as apart:
        asking = apart.submit(ask)
        assert first.wait(ENOUGH_S)  # all are handed over at once: the first answer comes while the others wait
        before = len(answered)
        chat(vllm, "Say hello.")
        found = len(answered) - before
        done.set()
        asking.result()
    return found


def test_production_goes_first_though_it_came_last(second_vllm: str) -> None:
    """At our priority it waits for what is being computed; at its own it would wait for the whole queue."""
    chat(second_vllm, "Say hello.")  # so that what a server does once, such as the template's compilation, is done
    behind, control = (answered_before_production(second_vllm, priority) for priority in (100, 0))
    assert control > MASKS / 2
    assert behind < control / 2
