"""The processes of an operator on a bad day: killed, stopped, without a store, with a full disk."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from spex_proxy.flows.batch import BUSY_PAUSE_S
from tests.story.explaining import Desk, count, question, sentences
from tests.story.processes import Running, Settings, is_alive, running, spex, wait_until
from tests.story.raw_client import RawClient, ask, chat_request
from tests.story.scripted_model import ScriptedModel, planted, waiting
from tests.story.upstream import LAST_CHUNK, Upstream, chunk, stream_head

pytestmark = pytest.mark.timeout(180)

GAME = planted(-12, {("Bravo",): 1.5, ("Alpha", "Delta"): 4})
FIVE = question(sentences(5))


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(GAME) as server:
        yield server


@pytest.fixture
def settings(model: ScriptedModel, store_path: Path) -> Settings:
    return Settings(model.url, f"sqlite:///{store_path}")


def say(url: str, body: dict[str, Any] = FIVE) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=body, trust_env=False, timeout=30)


def assert_served_as_if_we_were_not_there(proxy: Running, body: dict[str, Any] = FIVE) -> None:
    direct, relayed = say(proxy.settings.upstream, body), say(proxy.settings.relay_url, body)
    assert (relayed.status_code, relayed.json()["choices"]) == (200, direct.json()["choices"])


# ---- the worker dies ----


async def test_a_worker_that_is_killed_leaves_off_where_the_next_one_begins(
    model: ScriptedModel, settings: Settings, store: Engine, tmp_path: Path
) -> None:
    settings.more["gate"] = "off"  # no relay runs beside it
    desk = Desk(model.url, store)
    exchange = desk.ask(FIVE)
    desk.close()
    model.faults.extend([lambda reply: [reply]] * 3)
    model.faults.append(waiting(model.gate()))
    with running("work", settings, tmp_path) as worker:
        wait_until(lambda: len(model.asked) == 32, 60)
        worker.kill()
    assert count(store, "evidence_blocks") == 3
    assert desk.jobs(exchange)[0].state == "running"
    committed = model.asked[:24]
    model.asked.clear()
    with running("work", settings, tmp_path) as worker:
        wait_until(lambda: desk.jobs(exchange)[0].state == "done", 60)
        assert worker.stop() == 0
    assert not set(model.asked) & set(committed)
    assert len(model.asked) == 34 - 24
    assert count(store, "explanations") == 1
    (explanation_id,) = [job.explanation_id for job in desk.jobs(exchange)]
    assert all(check.is_passed for check in desk.checks(str(explanation_id)))


def test_up_starts_a_dead_worker_again_and_production_never_notices(
    model: ScriptedModel, settings: Settings, store: Engine, tmp_path: Path
) -> None:
    gate = model.gate()
    model.always = waiting(gate)
    with running("up", settings, tmp_path) as up:
        assert_served_as_if_we_were_not_there(up)
        wait_until(lambda: len(model.asked) == 8, 60)
        first = up.children()
        assert set(first) == {"serve", "work"}
        os.kill(first["work"], signal.SIGKILL)
        assert_served_as_if_we_were_not_there(up)
        model.always = None
        gate.open()
        wait_until(lambda: count(store, "outbox", "state = 'done'") == 2, 90)
        second = up.children()
        assert second["serve"] == first["serve"]
        assert second["work"] != first["work"]
        assert up.metric("relayed_requests_total") == 2
        assert "ended with code 137" in up.log
        # Ctrl-C in a terminal reaches the whole group: relay and worker at once, and `up`, which tells them again
        os.killpg(up.process.pid, signal.SIGINT)
        assert up.process.wait(60) == 0
        assert "Traceback" not in up.log
    assert not any(map(is_alive, second.values()))
    assert count(store, "explanations") == 2


def test_when_the_relay_dies_up_ends_with_its_code(settings: Settings, tmp_path: Path) -> None:
    """So that whoever supervises it sees it, and starts it again."""
    with running("up", settings, tmp_path) as up:
        wait_until(lambda: len(up.children()) == 2, 30)
        children = up.children()
        os.kill(children["serve"], signal.SIGKILL)
        assert up.process.wait(60) == 137
    assert not any(map(is_alive, children.values()))


# ---- the store can't be used ----


def test_a_store_that_can_not_be_made(settings: Settings, tmp_path: Path) -> None:
    """A path below a file: not even root can make that."""
    (tmp_path / "file").write_text("in the way")
    settings.store = f"sqlite:///{tmp_path}/file/spex.db"
    with running("up", settings, tmp_path) as proxy:
        assert_served_as_if_we_were_not_there(proxy)
        assert "spex.db" in proxy.ready()["store"]
        wait_until(lambda: proxy.metric("dropped_exchanges_total", '{reason="save_failed"}') == 1, 30)
        assert_served_as_if_we_were_not_there(proxy)
        assert proxy.metric("relayed_requests_total") == 2
        assert proxy.stop() == 0


def test_a_store_that_was_never_migrated(settings: Settings, tmp_path: Path) -> None:
    settings.store = f"sqlite:///{tmp_path}/new.db"
    (tmp_path / "new.db").touch()
    with running("serve", settings, tmp_path) as proxy:
        assert_served_as_if_we_were_not_there(proxy)
        assert "spex-proxy db upgrade" in proxy.ready()["store"]
        assert spex("db", "upgrade", settings=settings).returncode == 0
        assert_served_as_if_we_were_not_there(proxy)
        wait_until(lambda: proxy.metric("stored_exchanges_total") > 0, 30)
        assert proxy.ready()["store"] == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a limit be lifted from outside")
def test_a_disk_that_is_full_and_then_is_not(settings: Settings, store_path: Path, tmp_path: Path) -> None:
    """The disk is a limit on the size of a file: it also stops root, and it can be lifted."""
    most = store_path.stat().st_size + 200_000
    noise = Random(1)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def long_question() -> dict[str, Any]:
        return question(noise.randbytes(30_000).hex())  # does not compress to less than half

    with running("serve", settings, tmp_path, before_start=limit) as proxy:
        assert_served_as_if_we_were_not_there(proxy)
        wait_until(lambda: proxy.metric("stored_exchanges_total") == 1, 30)
        assert proxy.ready()["store"] == "ok"
        for _ in range(12):
            assert_served_as_if_we_were_not_there(proxy, long_question())
        wait_until(lambda: proxy.metric("intake_queue_items") == 0, 60)
        lost = proxy.metric("dropped_exchanges_total")
        assert lost > 0
        assert proxy.metric("stored_exchanges_total") + lost == 13
        assert "could not be saved" in proxy.ready()["store"]
        assert "is here" not in proxy.log, "a log quotes no content"

        resource.prlimit(proxy.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert_served_as_if_we_were_not_there(proxy)
        wait_until(lambda: proxy.metric("stored_exchanges_total") + lost == 14, 30)
        assert proxy.ready()["store"] == "ok"
        assert proxy.stop() == 0
    with closing(sqlite3.connect(store_path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM exchanges").fetchone() == (14 - lost,)


@pytest.mark.slow
def test_a_store_that_is_locked_for_a_minute(settings: Settings, store_path: Path, tmp_path: Path) -> None:
    """By a transaction of somebody else's: production is served all the while, and what it costs is counted."""
    settings.more |= {"explain_rate": 0}
    with running("serve", settings, tmp_path) as proxy, closing(sqlite3.connect(store_path)) as locking:
        locking.execute("BEGIN IMMEDIATE")
        until, asked = time.monotonic() + 60, 0
        while time.monotonic() < until:
            assert_served_as_if_we_were_not_there(proxy)
            asked += 1
            time.sleep(2)
        assert proxy.metric("stored_exchanges_total") == 0
        assert proxy.metric("faults_total", '{place="save"}') > 0
        assert "could not be saved" in proxy.ready()["store"]
        locking.rollback()
        assert_served_as_if_we_were_not_there(proxy)
        wait_until(lambda: proxy.metric("intake_queue_items") == 0, 60)
        kept = proxy.metric("stored_exchanges_total")
        assert kept >= 1
        assert kept + proxy.metric("dropped_exchanges_total") == asked + 1
        assert proxy.ready()["store"] == "ok"
        assert proxy.metric("relayed_requests_total") == asked + 1
        assert proxy.stop() == 0
    with closing(sqlite3.connect(store_path)) as db:
        assert db.execute("SELECT count(*) FROM exchanges").fetchone() == (kept,)


def test_a_rules_file_with_an_error_is_saved_while_running(settings: Settings, tmp_path: Path) -> None:
    """The old rules hold, and it is said loudly: in the log with its line, in /readyz and as a gauge."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - name: none\n    capture: 0\n")
    settings.more |= {"rules": rules}
    with running("serve", settings, tmp_path) as proxy:
        assert proxy.ready()["rules"] == "ok"
        rules.write_text("rules:\n  - name: all\n    capture: 1\n  - name: other\n    capture: many\n")
        wait_until(lambda: proxy.metric("rules_loaded_total", '{result="refused"}') == 1, 30)
        assert "x-spex-request-id" not in say(settings.relay_url).headers
        assert "rules.yaml:5:14: must be a number" in proxy.ready()["rules"]
        assert proxy.ready()["store"] == "ok"
        assert "the rules were not changed" in proxy.log
        assert proxy.metric("rules_stale") == 1
        rules.write_text("rules:\n  - name: all\n    capture: 1\n")
        wait_until(lambda: proxy.metric("rules_loaded_total", '{result="accepted"}') == 1, 30)
        assert "x-spex-request-id" in say(settings.relay_url).headers
        assert proxy.metric("rules_stale") == 0
        assert proxy.stop() == 0


def test_reading_commands_make_no_store(settings: Settings, tmp_path: Path) -> None:
    settings.store = f"sqlite:///{tmp_path}/none/spex.db"
    done = spex("list", settings=settings)
    assert done.returncode == 1
    assert "there is no store" in done.stderr
    assert not (tmp_path / "none").exists()


# ---- being stopped ----


def test_sigterm_lets_running_answers_end_and_keeps_them(store: Engine, store_path: Path, tmp_path: Path) -> None:
    with Upstream() as upstream:
        gate = upstream.gate()
        upstream.answers(
            stream_head(),
            chunk(b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'),
            gate,
            chunk(b'data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n'),
            chunk(b"data: [DONE]\n\n"),
            LAST_CHUNK,
        )
        settings = Settings(upstream.url, f"sqlite:///{store_path}", more={"explain_rate": 0})
        with running("up", settings, tmp_path) as proxy, RawClient(settings.port, timeout_s=60) as client:
            client.send(chat_request(b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'))
            head = client.read_head()
            assert head.status == 200
            assert b"Hel" in client.read_chunk()
            proxy.process.terminate()
            wait_until(lambda: _refuses(settings.port), 20)
            threading.Timer(1.0, gate.open).start()
            rest = b"".join(iter(client.read_chunk, b""))
            assert b'"lo"' in rest
            assert rest.endswith(b"[DONE]\n\n")
            assert proxy.process.wait(60) == 0
    assert count(store, "exchanges") == 1


def _refuses(port: int) -> bool:
    try:
        return ask(port, b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").status == 0
    except OSError:
        return True


def test_a_grace_is_longer_than_what_it_waits_for() -> None:
    """`up` kills only what had the time to end by itself; a batch of questions is no reason to wait."""
    from spex_proxy.ports.processes import GRACE_S  # noqa: PLC0415
    from spex_proxy.wiring.relaying import DRAIN_S  # noqa: PLC0415

    assert GRACE_S > 30 + DRAIN_S
    assert BUSY_PAUSE_S < GRACE_S
