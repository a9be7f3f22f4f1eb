"""`spex-proxy serve` under durable hand-off: killed under load at random points, stopped without a store."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from spex_proxy.store.connect import open_store
from spex_proxy.store.tables import exchanges
from tests.databases import database, postgres, sqlite_template  # noqa: F401 - fixtures
from tests.story.processes import Running, Settings, running, wait_until
from tests.story.raw_client import Answer, RawClient, ask, chat_request
from tests.story.upstream import LAST_CHUNK, Upstream, chunk, eventually, stream_head

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

PIECE = (
    b'data: {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": '
    b'[{"index": 0, "delta": {"content": "word "}, "finish_reason": null}]}\n\n'
)
LAST = PIECE.replace(b"null", b'"stop"') + b"data: [DONE]\n\n"
STREAM = (stream_head(), *[chunk(PIECE)] * 6, chunk(LAST), LAST_CHUNK)
ASK = chat_request(
    b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}', "Authorization: hunter2"
)


class Crowd:
    """Clients that ask without pause, and remember which answers they saw the end of."""

    def __init__(self, port: int, size: int) -> None:
        self._port = port
        self._stops = threading.Event()
        self.whole: list[str] = []
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        self._stops.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _ask(self) -> None:
        while not self._stops.is_set():
            try:
                with RawClient(self._port) as client:
                    while not self._stops.is_set():
                        client.send(ASK)
                        answer = client.read_head()
                        self._read(client, answer)
            except OSError:  # killed, and not up again yet
                time.sleep(0.02)

    def _read(self, client: RawClient, answer: Answer) -> None:
        body = b""
        try:
            while piece := client.read_chunk():
                body += piece
        finally:
            if body.endswith(b"data: [DONE]\n\n"):
                self.whole.append((answer.value(b"x-spex-request-id") or b"").decode())


def stored(store: Engine) -> Counter[str]:
    with store.connect() as connection:
        return Counter(connection.scalars(sa.select(exchanges.c.id)))


def settings_for(upstream: Upstream, store: str, tmp_path: Path) -> Settings:
    durable = {"handoff": "durable", "spool": tmp_path / "spool", "handoff_wait_s": 30, "explain_rate": 0}
    return Settings(upstream.url, store, more=durable)


def balance(proxy: Running) -> tuple[float, float]:
    """What came, and what became of it."""
    came, went = ("offered", "replayed"), ("skipped", "dropped", "stored", "known")
    waiting = proxy.metric("intake_queue_items")
    return (
        sum(proxy.metric(f"{name}_exchanges_total") for name in came),
        sum(proxy.metric(f"{name}_exchanges_total") for name in went) + waiting,
    )


def test_killed_under_load_no_answer_that_a_client_saw_end_is_lost(
    database: Callable[[bool], str],  # noqa: F811
    tmp_path: Path,
) -> None:
    url, dice = database(True), random.Random(5)
    store = open_store(url)
    with Upstream() as upstream:
        upstream.answers(*STREAM)
        settings = settings_for(upstream, url, tmp_path)
        crowd = Crowd(settings.port, 6)
        for _ in range(4):
            with running("serve", settings, tmp_path) as proxy:
                before = len(crowd.whole)
                wait_until(lambda: len(crowd.whole) > before + 20, 60, 0.01)  # noqa: B023 - used at once
                time.sleep(dice.uniform(0, 0.3))
                proxy.kill()
        assert b"hunter2" not in b"".join(file.read_bytes() for file in (tmp_path / "spool").rglob("*.seg"))
        with running("serve", settings, tmp_path) as proxy:
            before = len(crowd.whole)
            wait_until(lambda: len(crowd.whole) > before + 20, 60)
            crowd.leave()
            wait_until(lambda: proxy.metric("intake_queue_items") == 0, 30)
            assert balance(proxy)[0] == balance(proxy)[1]
            assert proxy.metric("dropped_exchanges_total") == 0
            assert proxy.stop() == 0
        eventually(lambda: upstream.live == 0)
    kept = stored(store)
    assert set(crowd.whole) <= set(kept)
    assert len(set(crowd.whole)) == len(crowd.whole) > 100
    assert kept.most_common(1)[0][1] == 1
    assert list((tmp_path / "spool").iterdir()) == []
    store.dispose()


def test_stopped_without_a_store_it_says_what_is_left_and_the_next_start_stores_it(
    store_path: Path, tmp_path: Path
) -> None:
    late = tmp_path / "late" / "spex.db"
    with Upstream() as upstream:
        upstream.answers(*STREAM)
        settings = settings_for(upstream, f"sqlite:///{late}", tmp_path)
        with running("serve", settings, tmp_path) as proxy:
            assert all(ask(settings.port, ASK).is_whole for _ in range(5))
            assert proxy.metric("spool_items") == 5
            assert proxy.stop() == 0
            assert "5 captures were not stored yet: kept in" in proxy.log
        late.parent.mkdir()
        shutil.copy(store_path, late)
        with running("serve", settings, tmp_path) as proxy:
            wait_until(lambda: proxy.metric("stored_exchanges_total") == 5, 30)
            assert proxy.metric("replayed_exchanges_total") == 5
            assert proxy.stop() == 0
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_spool_that_cannot_be_written_fails_open(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where a folder should be")
    with Upstream() as upstream:
        upstream.answers(*STREAM)
        settings = settings_for(upstream, f"sqlite:///{store_path}", tmp_path)
        with running("serve", settings, tmp_path) as proxy:
            assert all(ask(settings.port, ASK).is_whole for _ in range(3))
            wait_until(lambda: proxy.metric("stored_exchanges_total") == 3, 30)
            assert proxy.metric("held_answers_total", '{outcome="unkept"}') == 3
            assert "spool" in proxy.ready()["store"]
            assert proxy.stop() == 0
