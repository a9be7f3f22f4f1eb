"""A worker's own port: what it counted is there to be read, and its queries were counted by nobody else."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.story.explaining import question, sentences
from tests.story.processes import Settings, free_port, running, wait_until
from tests.story.scripted_model import ScriptedModel, busy, planted

pytestmark = pytest.mark.timeout(240)

ENOUGH_S = 120


def counters(port: int) -> dict[str, float]:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=10).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def test_what_a_worker_counts_is_told_on_a_port_of_its_own(empty_store: Path, tmp_path: Path) -> None:
    store = Path(shutil.copy(empty_store, tmp_path / "spex.db"))
    port = free_port()
    with ScriptedModel(planted(-12, {("Bravo",): 1.5, ("Alpha", "Delta"): 4})) as model:
        settings = Settings(model.url, f"sqlite:///{store}", more={"target_r2": 1, "job_pause_s": 0.1})
        model.faults += [busy, busy, busy, busy]  # one job's whole patience
        with running("serve", settings, tmp_path) as house:
            client = OpenAI(base_url=f"{settings.relay_url}/v1", api_key="none", max_retries=0)
            client.chat.completions.create(**question(sentences(5)))
            wait_until(lambda: house.metric("stored_exchanges_total") == 1, ENOUGH_S)
            with running("work", replace(settings, more=settings.more | {"worker_port": port}), tmp_path) as worker:
                wait_until(lambda: is_up(port), ENOUGH_S)
                wait_until(lambda: "explained" in worker.log, ENOUGH_S)
                told = counters(port)
                assert told["spex_unanswered_batches_total"] == 4
                assert told["spex_unanswered_masks_total"] > 0
                assert told['spex_gate_batches_total{outcome="failed"}'] == 1
                assert told['spex_gate_batches_total{outcome="answered"}'] >= 2
                assert house.metric("unanswered_batches_total") == 0
                assert worker.stop() == 0


def test_a_port_that_is_taken_is_named(empty_store: Path, tmp_path: Path) -> None:
    store = Path(shutil.copy(empty_store, tmp_path / "spex.db"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings("http://127.0.0.1:9", f"sqlite:///{store}", more={"worker_port": port})
        with running("work", settings, tmp_path) as worker:
            wait_until(lambda: worker.process.poll() is not None, ENOUGH_S)
            assert worker.process.returncode == 1
            assert f"can't listen on 127.0.0.1:{port}" in worker.log
