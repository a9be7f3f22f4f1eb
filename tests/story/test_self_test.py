"""`spex-proxy doctor --relay` against a scripted server: transparent, and what it says where something is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from spex_proxy.facts.finding import Finding
from spex_proxy.flows import self_test as flow
from spex_proxy.flows.self_test import SelfTest
from spex_proxy.ports.passage import Passage
from spex_proxy.settings import Settings
from spex_proxy.wiring.self_test import self_test
from tests.story.processes import free_port
from tests.story.upstream import HANG, LAST_CHUNK, Seen, Step, Upstream, answer, chunk, eventually, stream_head

REPLY = b'{"id": "chatcmpl-%d", "created": 17%d, "choices": [{"message": {"content": "Yes."}}]}'
EVENT = b'data: {"id": "chatcmpl-%d", "choices": [{"delta": {"content": "Yes"}}]}\n\n'


class Model:
    """Answers as vLLM does, each time with another id."""

    def __init__(self) -> None:
        self.number = 0
        self.word = b"Yes"

    async def respond(self, seen: Seen) -> Sequence[Step]:
        self.number += 1
        if seen.target == b"/v1/models":
            return (answer(b'{"object": "list", "data": [{"id": "m", "max_model_len": 64}]}'),)
        try:
            body = json.loads(seen.body)
        except ValueError:
            return (answer(b'{"error": {"message": "no JSON"}}', status="400 Bad Request"),)
        if body.get("stream"):
            event = chunk((EVENT % self.number).replace(b"Yes", self.word))
            end: tuple[Step, ...] = (HANG,) if "min_tokens" in body else (chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
            return (stream_head(), event, event, *end)
        return (answer((REPLY % (self.number, self.number)).replace(b"Yes", self.word)),)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def upstream(model: Model) -> Iterator[Upstream]:
    with Upstream() as server:
        server.answers_by(model.respond)
        yield server
        eventually(lambda: server.live == 0)


async def examined(findings: AsyncIterator[Finding]) -> dict[str, Finding]:
    return {finding.name.removeprefix("relay: "): finding async for finding in findings}


async def test_our_relay_on_a_good_server(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "ROUNDS", 5)
    async with self_test(Settings(upstream=upstream.url), upstream.url, None) as test:
        found = await examined(test.examine())
    assert list(found) == ["JSON", "SSE", "errors", "aborts", "overhead", "verdict"]
    assert {found[name].level for name in ("JSON", "SSE", "errors")} == {"ok"}
    assert found["aborts"].level in ("ok", "warning")  # how fast is the machine's business
    assert "of 3" in found["aborts"].found
    assert "(5 requests each)" in found["overhead"].found
    assert found["verdict"].level in ("ok", "warning")
    assert upstream.aborted == 3


async def test_a_relay_that_changes_a_word_is_found(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "ROUNDS", 2)
    other = Model()
    other.word = b"No"
    with Upstream() as relay:
        relay.answers_by(other.respond)
        found = await examined(SelfTest(upstream.url, relay.url, relay.url, "m", None, None).examine())
    assert (found["JSON"].level, found["SSE"].level, found["errors"].level) == ("broken", "broken", "ok")
    assert "from byte" in found["JSON"].found
    assert found["aborts"].level == "unknown"
    assert found["verdict"].level == "broken"
    assert "JSON" in found["verdict"].found


async def test_a_server_that_says_something_else_each_time(upstream: Upstream, model: Model) -> None:
    async def fickle(seen: Seen) -> Sequence[Step]:
        model.word = b"Yes %d" % model.number
        return await model.respond(seen)

    upstream.answers_by(fickle)
    test = SelfTest(upstream.url, upstream.url, upstream.url, "m", None, None)
    found = [finding async for finding in test.examine() if finding.name in ("relay: JSON", "relay: SSE")]
    assert [finding.level for finding in found] == ["unknown", "unknown"]


async def test_a_relay_that_does_not_tell_of_an_abort(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "ROUNDS", 2)
    monkeypatch.setattr(flow, "SEEN_S", 0.05)
    async with Passage("127.0.0.1", upstream.port) as passage:  # nothing goes through it: nobody leaves it
        found = await examined(SelfTest(upstream.url, upstream.url, upstream.url, "m", None, passage).examine())
    assert (found["aborts"].level, found["verdict"].level) == ("broken", "broken")


async def test_without_a_server() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    async with self_test(Settings(upstream=nobody), nobody, "m") as test:
        found = await examined(test.examine())
    assert {found[name].level for name in ("JSON", "SSE", "errors", "aborts", "overhead")} == {"unknown"}
    assert all(finding.advice for finding in found.values())
    await asyncio.sleep(0)
