"""The capture middleware over plain ASGI: production first, nothing but what was answered 200, every loss counted."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from spex_proxy_vllm.board import Board
from spex_proxy_vllm.capture import BACKGROUND, Capture, Message, Receive, Seen, Send, new_id
from spex_proxy_vllm.sender import Sender, Way
from tests.unit.vllm_engine.test_handing import Door, door

CHAT = "/v1/chat/completions"
PIECES = (b"data: one\n\n", b"data: two\n\n", b"data: [DONE]\n\n")


@dataclass
class Client:
    """One request, and what came back."""

    path: str = CHAT
    root: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: tuple[bytes, ...] = (b'{"a', b'": 1}')
    sent: list[Message] = field(default_factory=list)
    leaves_after: int | None = None
    """So many messages of the answer."""

    def scope(self) -> dict[str, Any]:
        return {"type": "http", "method": "POST", "path": self.path, "root_path": self.root, "headers": self.headers}

    async def ask(self, app: Capture) -> None:
        pieces = iter([*self.body[:-1], None])
        left = asyncio.Event()

        async def receive() -> Message:
            for piece in pieces:
                if piece is None:
                    return {"type": "http.request", "body": self.body[-1], "more_body": False}
                return {"type": "http.request", "body": piece, "more_body": True}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.sent.append(message)
            if len(self.sent) == self.leaves_after:
                left.set()
                await asyncio.sleep(0)

        await app(self.scope(), receive, send)


@dataclass
class Server:
    """vLLM's application, reduced to what it says."""

    status: int = 200
    breaks_after: int | None = None
    listens: bool = False
    board: Board | None = None
    counts: list[tuple[int, int] | None] = field(default_factory=list)
    """The board's count of production at each step."""

    async def __call__(self, _: Any, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        self.note()
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"x-a", b"1")]})
        for number, piece in enumerate(PIECES):
            if number == self.breaks_after:
                raise RuntimeError("the engine is dead")
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self.note()
            if self.listens and number == 0:
                assert (await receive())["type"] == "http.disconnect"
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self.note()

    def note(self) -> None:
        if self.board is not None:
            self.counts.append(self.board.production)


@pytest.fixture
def opened() -> Iterator[Door]:
    with door() as one:
        yield one


async def told(opened: Door, client: Client, server: Server, **way: int) -> tuple[list[dict[str, Any]], Sender]:
    """What arrives of one request."""
    sender = Sender(Way(opened.url, "k", **way))
    board = server.board or Board()
    try:
        await client.ask(Capture(server, sender, board))
    finally:
        await asyncio.to_thread(sender.close, 5)
        assert board.production == (0, 0)
        assert sender._held == 0
    return opened.lines(), sender


async def test_what_was_answered_is_handed_over_as_it_passed(opened: Door) -> None:
    board = Board()
    client, server = Client(headers=[(b"x-spex-explain", b"yes"), (b"authorization", b"s")]), Server(board=board)
    (line,), _ = await told(opened, client, server)
    assert line["headers"] == [["x-spex-explain", "yes"]]
    assert (line["path"], line["status"], line["ending"]) == (CHAT, 200, "complete")
    assert line["response_headers"] == [["x-a", "1"]]
    assert 0 <= line["first_byte_s"] <= line["duration_s"]
    bodies = opened.payloads[0].partition(b"\n")[2]
    assert bodies == b'{"a": 1}' + b"".join(PIECES)
    assert [message.get("body") for message in client.sent] == [None, *PIECES, b""]
    assert server.counts == [(1, 1), (1, 0), (1, 0), (1, 0), (0, 0)]


async def test_behind_a_prefix_that_nobody_strips(opened: Door) -> None:
    (line,), _ = await told(opened, Client(f"/api{CHAT}", root="/api"), Server())
    assert line["path"] == CHAT


@pytest.mark.parametrize("status", [401, 404, 429, 500])
async def test_what_was_refused_is_not_kept_and_is_no_loss(opened: Door, status: int) -> None:
    lines, sender = await told(opened, Client(), Server(status))
    assert lines == []
    assert not sender._lost


@pytest.mark.parametrize("path", ["/v1/embeddings", "/metrics", "/v1/chat/completions/render", "/v1/spex/score"])
async def test_other_paths_pass_unseen(opened: Door, path: str) -> None:
    client = Client(path)
    assert (await told(opened, client, Server()))[0] == []
    assert len(client.sent) == 5


@pytest.mark.parametrize(("key", "handed"), [(b"k", 0), (b"other", 1), (b"", 1)])
async def test_our_own_questions_are_no_production_and_nobody_else_can_say_so(
    opened: Door, key: bytes, handed: int
) -> None:
    lines, _ = await told(opened, Client(headers=[(BACKGROUND, key)]), Server())
    assert len(lines) == handed


async def test_a_client_that_leaves(opened: Door) -> None:
    (line,), _ = await told(opened, Client(leaves_after=2), Server(listens=True))
    assert line["ending"] == "client_gone"


async def test_an_application_that_fails(opened: Door) -> None:
    with pytest.raises(RuntimeError, match="the engine is dead"):
        await told(opened, Client(), Server(breaks_after=2))
    (line,) = opened.lines()
    assert line["ending"] == "upstream_broken"
    assert opened.payloads[0].endswith(PIECES[1])


@pytest.mark.parametrize(("way", "reason"), [({"most_of_one": 20}, "too_large"), ({"most_bytes": 20}, "memory_full")])
async def test_bounds(opened: Door, way: dict[str, int], reason: str) -> None:
    client = Client()
    lines, sender = await told(opened, client, Server(), **way)
    assert lines == []
    assert sender._lost == {reason: 1}
    assert len(client.sent) == 5


async def test_a_fault_of_ours_costs_the_watching_only(opened: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Seen, "heard", broken)
    client = Client()
    lines, sender = await told(opened, client, Server())
    assert lines == []
    assert sender._lost == {"fault": 1}
    assert len(client.sent) == 5


async def test_without_a_key_everything_passes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SPEX_HANDOVER_KEY", raising=False)
    board = Board()
    client = Client()
    await client.ask(Capture(Server(), board=board))
    assert len(client.sent) == 5
    assert "SPEX_HANDOVER_KEY" in caplog.text
    assert "production" not in board.read()


async def test_what_waits_goes_out_before_the_server_says_that_it_has_stopped(opened: Door) -> None:
    sender = Sender(Way(opened.url, "k"))
    seen_at_the_end: list[int] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await Server()(scope, receive, send)

    async def send(_: Message) -> None:
        seen_at_the_end.append(len(opened.payloads))

    capture = Capture(app, sender, Board())
    for _ in range(3):
        await Client().ask(capture)
    await capture({"type": "lifespan"}, lambda: asyncio.sleep(0, {}), send)
    assert seen_at_the_end == [3]


def test_ids_are_version_7_and_in_order() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(uuid.UUID(one).version == 7 and uuid.UUID(one).variant == uuid.RFC_4122 for one in ids)
    assert [one[:13] for one in ids] == sorted(one[:13] for one in ids)


def test_the_board_tells_of_production_only_with_a_middleware() -> None:
    board = Board()
    assert "production" not in json.loads(json.dumps(board.read()))
    board.production = (0, 0)
    board.began()
    assert board.read()["production"] == {"in_flight": 1, "awaiting_first": 1}
