"""The plugin's side of the hand-over: the golden form, and a sender that waits for nobody and counts what is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from spex_proxy.ports.spool import records
from spex_proxy.wire.chat import KINDS
from spex_proxy_vllm.handing import PATHS, Finished, is_secret, pack
from spex_proxy_vllm.sender import PATH, Sender, Way, connection
from tests.story.upstream import eventually

GOLDEN = json.loads((Path(__file__).parents[3] / "plugins/vllm_engine/golden/handover.json").read_text())
LINE = GOLDEN["line"]


def finished(**changes: Any) -> Finished:
    told = {
        name: LINE[name] for name in ("id", "method", "path", "received_at", "status", "first_byte_s", "duration_s")
    }
    answered = tuple((name.encode(), value.encode()) for name, value in LINE["response_headers"])
    sent = tuple((name.encode(), value.encode("latin-1")) for name, value in GOLDEN["headers"])
    bodies = {"request_body": GOLDEN["request"].encode(), "answer": GOLDEN["answer"].encode()}
    more: dict[str, Any] = told | bodies | {"headers": sent, "response_headers": answered, "ending": LINE["ending"]}
    return Finished(**more | changes)


def test_the_golden_exchange() -> None:
    line, _, bodies = pack(finished(), LINE["lost"]).partition(b"\n")
    assert json.loads(line) == LINE
    assert bodies.decode() == GOLDEN["request"] + GOLDEN["answer"]


def test_secrets_are_what_the_spool_takes_for_secrets_but_for_our_key() -> None:
    for name, _ in GOLDEN["headers"]:
        known = name.encode() != b"x-spex-key" and records.is_secret(name.encode())
        assert is_secret(name.encode()) == known


@dataclass
class Door:
    """An HTTP server that takes what is handed over, and answers as it is told."""

    url: str
    payloads: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    status: Callable[[], int] = lambda: 200

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(payload.partition(b"\n")[0]) for payload in self.payloads]


@contextmanager
def door(port: int = 0) -> Iterator[Door]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            payload = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == PATH
            opened.keys.append(self.headers["authorization"])
            status = opened.status()
            if status == 200:
                opened.payloads.append(payload)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    opened = Door(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield opened
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def sender(url: str, **more: int) -> Iterator[Sender]:
    made = Sender(Way(url, "k", **more))
    yield made
    made.close(5)


def offer(to: Sender, one: Finished) -> None:
    assert to.take(one.size)
    to.offer(one)


def test_what_is_offered_arrives_once_under_the_key() -> None:
    with door() as opened:
        with sender(opened.url) as to:
            for _ in range(5):
                offer(to, finished())
        assert opened.payloads == [pack(finished(), {})] * 5
        assert set(opened.keys) == {"Bearer k"}
        assert to._held == 0


def test_who_does_not_answer_is_asked_again_and_losses_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spex_proxy_vllm.sender.PAUSES_S", (0.01,))
    answers = iter([503, 500, 200, 200])
    with door() as opened:
        opened.status = lambda: next(answers)
        with sender(opened.url) as to:
            to.lose("memory_full", 2)
            offer(to, finished())
            eventually(lambda: len(opened.payloads) == 1)
            offer(to, finished())
        assert [line["lost"] for line in opened.lines()] == [{"memory_full": 2}, {}]


def test_a_refusal_is_final_and_told_with_the_next() -> None:
    answers = iter([401, 200])
    with door() as opened:
        opened.status = lambda: next(answers)
        with sender(opened.url) as to:
            offer(to, finished())
            offer(to, finished())
        assert [line["lost"] for line in opened.lines()] == [{"refused": 1}]


def test_what_waits_is_bounded_and_what_is_left_at_the_end_is_counted() -> None:
    with door() as opened:
        address = opened.url  # nobody listens there any more
    one = finished()
    with sender(address, most_bytes=2 * one.size) as to:
        offer(to, one)
        offer(to, one)
        assert not to.take(one.size)
        to.close(0.1)
        assert to._lost == {"shutdown": 2}
        assert to._held == 0
        assert to.take(one.size)
        to.offer(one)  # too late
        assert to._lost == {"shutdown": 3}


def test_the_way_is_read_from_the_environment() -> None:
    assert Way.of({}) is None
    way = Way.of({"SPEX_HANDOVER_KEY": "k", "SPEX_HANDOVER_URL": "https://spex:8081"})
    assert way is not None
    assert (way.key, way.url) == ("k", "https://spex:8081")
    assert "key" not in repr(way)
    for url in ("spex:8081", "ftp://spex", "http://", "unix:/run/spex.sock"):
        with pytest.raises(ValueError, match="SPEX_HANDOVER_URL"):
            connection(url)


def test_the_paths_are_those_that_are_understood() -> None:
    assert set(KINDS) == PATHS
