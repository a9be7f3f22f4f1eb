"""`serve --workers N`: several relay processes on one port, seen as one on the second; killed, restarted, drained."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from spex_proxy.store.tables import exchanges
from tests.story.processes import START_S, Running, Settings, get, is_alive, running, wait_until
from tests.story.raw_client import RawClient, ask, chat_request, request
from tests.story.upstream import LAST_CHUNK, Upstream, answer, chunk, eventually, stream_head

pytestmark = pytest.mark.timeout(600)

ASK = chat_request(b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}')
REPLY = answer(
    b'{"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "finish_reason": "stop", '
    b'"message": {"role": "assistant", "content": "Hello"}}]}'
)
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server
        eventually(lambda: server.live == 0)


def settings_for(upstream: Upstream, store_path: Path, **more: object) -> Settings:
    return Settings(upstream.url, f"sqlite:///{store_path}", more={"workers": 2, "explain_rate": 0} | more)


@pytest.fixture(autouse=True)
def connections() -> Iterator[None]:
    """Closes those that a test has opened."""
    yield
    while _OPEN:
        _OPEN.pop().leave()


_OPEN: list[RawClient] = []


def connected(parent: Running, count: int) -> list[RawClient]:
    clients = [RawClient(parent.settings.port, timeout_s=60) for _ in range(count)]
    _OPEN.extend(clients)
    return clients


def relays(parent: Running) -> set[int]:
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], check=True, capture_output=True, text=True)
    rows = re.findall(r"^\s*(\d+)\s+(\d+)\s+(.*)$", listing.stdout, re.MULTILINE)
    return {int(pid) for pid, ppid, args in rows if int(ppid) == parent.process.pid and "--link" in args}


def all_serve(parent: Running) -> bool:
    return bool(parent.ready()["processes"] == {"wanted": 2, "serving": 2})


def came(parent: Running) -> float:
    return sum(parent.metric(f"{name}_exchanges_total") for name in ("offered", "replayed"))


def went(parent: Running) -> float:
    names = ("skipped", "dropped", "stored", "known", "left")
    return sum(parent.metric(f"{name}_exchanges_total") for name in names) + parent.metric("intake_queue_items")


def held_by(clients: list[RawClient], processes: set[int]) -> dict[int, list[RawClient]]:
    """Which relay process each connection belongs to: found by the kernel's own table of sockets."""
    owner: dict[int, int] = {}
    for pid in processes:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", str(fd.readlink()))
            except FileNotFoundError:
                continue
            if found:
                owner[int(found[1])] = pid
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    by_port = {int(row[2].split(":")[1], 16): int(row[9]) for row in rows}
    out: dict[int, list[RawClient]] = {pid: [] for pid in processes}
    for client in clients:
        inode = by_port.get(client.local_port)
        if inode in owner:
            out[owner[inode]].append(client)
    return out


def test_all_serve_one_port_and_their_numbers_are_one(
    upstream: Upstream, store: Engine, store_path: Path, tmp_path: Path
) -> None:
    upstream.answers(REPLY)
    with running("serve", settings_for(upstream, store_path), tmp_path) as parent:
        wait_until(lambda: all_serve(parent), START_S)
        clients = connected(parent, 40)
        shares = held_by(clients, relays(parent))
        assert all(len(share) > 0 for share in shares.values()), "one process took all connections"
        for client in clients:
            client.send(ASK)
            assert client.read_answer().status == 200
        wait_until(lambda: parent.metric("stored_exchanges_total") == 40, 30)
        assert parent.metric("relayed_requests_total") == 40
        assert came(parent) == went(parent) == 40
        assert parent.metric("relay_processes") == 2
        assert parent.ready()["counts"]["stored_exchanges"] == 40
        children = relays(parent)
        assert parent.stop() == 0
        assert "Traceback" not in parent.log
    assert not any(map(is_alive, children))
    with store.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(exchanges)) == 40


def test_one_that_is_killed_is_started_again_and_the_others_notice_nothing(
    upstream: Upstream, store_path: Path, tmp_path: Path
) -> None:
    gate = upstream.gate()
    upstream.answers(stream_head(), chunk(EVENT), gate, chunk(LAST), LAST_CHUNK)
    with running("serve", settings_for(upstream, store_path), tmp_path) as parent:
        wait_until(lambda: all_serve(parent), START_S)
        before = relays(parent)
        clients = connected(parent, 40)
        for client in clients:
            client.send(ASK)
            client.read_head()
            assert client.read_chunk() == EVENT
        dies, lives = held_by(clients, before).items()
        os.kill(dies[0], signal.SIGKILL)
        for client in dies[1]:
            with pytest.raises(ConnectionError):
                client.read_chunk()
        eventually(lambda: upstream.live == len(lives[1]))
        assert parent.metric("relayed_requests_total") == 0  # they are all under way
        gate.open()
        for client in lives[1]:
            assert client.read_chunk() == LAST
        wait_until(lambda: all_serve(parent) and relays(parent) != before, START_S)
        assert len(relays(parent) & before) == 1
        upstream.answers(REPLY)
        assert all(ask(parent.settings.port, ASK).status == 200 for _ in range(20))
        assert parent.metric("relayed_requests_total") == len(lives[1]) + 20
        assert parent.metric("relay_restarts_total") == 1
        wait_until(lambda: parent.metric("intake_queue_items") == 0, 30)
        assert came(parent) == went(parent)
        assert parent.stop() == 0


def test_what_a_killed_one_had_on_disk_another_stores(
    upstream: Upstream, store: Engine, store_path: Path, tmp_path: Path
) -> None:
    """The store is locked meanwhile, so everything waits in the spools of both; then one process is killed."""
    upstream.answers(REPLY)
    durable = {"handoff": "durable", "spool": tmp_path / "spool", "handoff_wait_s": 30}
    with running("serve", settings_for(upstream, store_path, **durable), tmp_path) as parent:
        wait_until(lambda: all_serve(parent), START_S)
        with closing(sqlite3.connect(store_path)) as locking:
            locking.execute("BEGIN IMMEDIATE")
            answered = [ask(parent.settings.port, ASK) for _ in range(20)]
            assert all(one.is_whole for one in answered)
            wait_until(lambda: parent.metric("spool_items") == 20, 30)
            os.kill(next(iter(relays(parent))), signal.SIGKILL)
            wait_until(lambda: parent.metric("relay_restarts_total") == 1 and all_serve(parent), START_S)
            locking.rollback()
        wait_until(lambda: parent.metric("stored_exchanges_total") == 20, 60)
        assert parent.metric("left_exchanges_total") == parent.metric("replayed_exchanges_total") > 0
        assert came(parent) == went(parent)
        assert parent.stop() == 0
    told = {(one.value(b"x-spex-request-id") or b"").decode() for one in answered}
    with store.connect() as connection:
        assert set(connection.scalars(sa.select(exchanges.c.id))) == told
    assert list((tmp_path / "spool").iterdir()) == []


def test_sigterm_drains_all(upstream: Upstream, store: Engine, store_path: Path, tmp_path: Path) -> None:
    gate = upstream.gate()
    upstream.answers(stream_head(), chunk(EVENT), gate, chunk(LAST), LAST_CHUNK)
    with running("serve", settings_for(upstream, store_path), tmp_path) as parent:
        wait_until(lambda: all_serve(parent), START_S)
        children = relays(parent)
        clients = connected(parent, 20)
        for client in clients:
            client.send(ASK)
            client.read_head()
            assert client.read_chunk() == EVENT
        assert all(held_by(clients, children).values())
        parent.process.terminate()
        threading.Timer(1.0, gate.open).start()
        for client in clients:
            assert (client.read_chunk(), client.read_chunk()) == (LAST, b"")
        assert parent.process.wait(60) == 0
        assert "Traceback" not in parent.log
    assert not any(map(is_alive, children))
    with store.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(exchanges)) == 20


def test_without_their_parent_they_stop(upstream: Upstream, store_path: Path, tmp_path: Path) -> None:
    with running("serve", settings_for(upstream, store_path), tmp_path) as parent:
        wait_until(lambda: all_serve(parent), START_S)
        children = relays(parent)
        parent.kill()
        wait_until(lambda: not any(map(is_alive, children)), 60)


def test_a_rules_file_with_an_error_is_told_of_all(upstream: Upstream, store_path: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - name: all\n    capture: 1\n")
    upstream.answers(REPLY)
    with running("serve", settings_for(upstream, store_path, rules=rules), tmp_path) as parent:
        wait_until(lambda: all_serve(parent), START_S)
        assert parent.ready()["rules"] == "ok"
        rules.write_text("rules:\n  - nam: all\n    capture: 0\n")
        wait_until(lambda: parent.metric("rules_loaded_total", '{result="refused"}') == 2, 30)
        assert "rules.yaml:2:" in parent.ready()["rules"]
        assert parent.metric("rules_stale") == 1
        assert ask(parent.settings.port, ASK).value(b"x-spex-request-id"), "the old rules hold: it is watched"
        rules.write_text("rules:\n  - name: all\n    capture: 0\n")
        wait_until(lambda: parent.metric("rules_loaded_total", '{result="accepted"}') == 2, 30)
        assert parent.ready()["rules"] == "ok"
        assert ask(parent.settings.port, ASK).value(b"x-spex-request-id") is None
        assert parent.stop() == 0


def test_a_port_that_others_share_already_is_refused(upstream: Upstream, store_path: Path, tmp_path: Path) -> None:
    upstream.answers(REPLY)
    with running("serve", settings_for(upstream, store_path), tmp_path) as parent:
        wait_until(lambda: all_serve(parent), START_S)
        second = settings_for(upstream, store_path)
        second.port = parent.settings.port
        with pytest.raises(AssertionError, match="ended with code 1"), running("serve", second, tmp_path):
            pass
        assert ask(parent.settings.port, request("GET", "/v1/models")).status == 200
        assert get(f"{parent.settings.admin_url}/healthz").status_code == 200
