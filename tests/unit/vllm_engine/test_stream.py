"""The plugin's answers: lines as they come, a bounded number in flight, nothing left running, nothing believed unread.

The engine is scripted here; the real one is asked in tests/story/test_real_vllm_scoring.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spex_proxy_vllm.asked import Asked, read
from spex_proxy_vllm.plugin import Stream
from spex_proxy_vllm.presence import BACKGROUND, PRESENCE, Presence, Watch
from spex_proxy_vllm.scoring import Answer, Failed, lines

GOLDEN = json.loads((Path(__file__).parents[3] / "plugins/vllm_engine/golden/spex_score.json").read_text())


def asked(**changes: Any) -> Asked:
    return replace(read(json.dumps(GOLDEN["request"]).encode()), **changes)


class Engine:
    """Answers by a function of (prompt, whole), and counts."""

    def __init__(self, answer: Callable[[list[int], bool], Answer]) -> None:
        self.answer = answer
        self.calls: list[tuple[list[int], bool]] = []
        self.now = self.most = 0
        self.gate: asyncio.Event | None = None
        self.full = asyncio.Event()
        """Set once four are in flight, which is what the golden request allows."""

    async def ask(self, prompt: list[int], asked: Asked, *, whole: bool) -> Answer:
        self.calls.append((prompt, whole))
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now == 4:
            self.full.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
            return self.answer(prompt, whole)
        finally:
            self.now -= 1


def sound(*logprobs: float, cached: int = 0) -> Answer:
    return Answer(np.asarray(logprobs, dtype=np.float32), 7, cached)


async def told(question: Asked, engine: Engine) -> list[dict[str, Any]]:
    return [json.loads(line) async for line in lines(question, engine, Presence())]


async def test_the_golden_answers() -> None:
    """Mask 1's rows were swallowed by the cache at first; mask 3's never came."""
    prompts = GOLDEN["prompts"]

    def answer(prompt: list[int], whole: bool) -> Answer:
        number, size = prompts.index(prompt), len(prompt) + 2
        if number == 3 or (number == 1 and not whole):
            return Answer(None, size if number == 1 else 4, 4 if number == 1 else 0)
        rows = np.asarray(GOLDEN["logprobs"][str(number)], dtype=np.float32)
        return Answer(rows, size, 0)

    found = await told(asked(), Engine(answer))
    assert found[-1] == GOLDEN["response"][-1]
    assert sorted(found[:-1], key=lambda line: line["mask"]) == sorted(
        GOLDEN["response"][:-1], key=lambda line: line["mask"]
    )


async def test_the_first_alone_then_so_many_at_once_in_order() -> None:
    engine = Engine(lambda prompt, whole: sound(-1, -1))
    many = asked(masks=np.ones((20, 3), dtype=np.bool_), in_flight=3, warm=True)
    stream = lines(many, engine, Presence())
    await anext(stream)
    assert len(engine.calls) == 1
    assert len([line async for line in stream]) == 20
    assert engine.most == 3
    cold = Engine(engine.answer)
    assert len(await told(replace(many, warm=False), cold)) == 21
    assert cold.most == 3


async def test_a_mask_asked_twice_is_computed_anew() -> None:
    """Its prompt is cached whole by then, and cached rows are never computed."""
    engine = Engine(lambda prompt, whole: sound(-1, -1))
    masks = np.asarray([[True] * 3, [True] * 3, [False] * 3])
    await told(asked(masks=masks), engine)
    assert [whole for _, whole in engine.calls] == [False, True, False]


@pytest.mark.parametrize("bad", [[np.nan, -1], [-1, np.inf], [0.5, -1], [-1], [-1, -1, -1]])
async def test_rows_that_can_be_no_log_probabilities_are_asked_again_and_never_passed_on(bad: list[float]) -> None:
    engine = Engine(lambda prompt, whole: sound(-0.5, -0.25) if whole else sound(*bad))
    first, *_ = await told(asked(), engine)
    assert first == {"mask": 0, "value": -0.75, "logprobs": "AAAAvwAAgL4=", "prompt_tokens": 14, "cached_tokens": 0}
    hopeless = Engine(lambda prompt, whole: sound(*bad))
    first, *_ = await told(asked(), hopeless)
    assert "no log-probability" in first["error"]
    assert first["again"] is False


@pytest.mark.parametrize("again", [True, False])
async def test_one_masks_failure_is_its_own(again: bool) -> None:
    def answer(prompt: list[int], whole: bool) -> Answer:
        if prompt == GOLDEN["prompts"][2]:
            raise Failed("the queue is full", again=again)
        return sound(-1, -1)

    found = await told(asked(), Engine(answer))
    failed = [line for line in found if "error" in line]
    assert failed == [{"mask": 2, "error": "the queue is full", "again": again, "prompt_tokens": 0, "cached_tokens": 0}]
    assert found[-1] == {"done": 4}


async def test_closing_the_stream_ends_what_is_in_flight() -> None:
    engine = Engine(lambda prompt, whole: sound(-1, -1))
    stream = lines(asked(masks=np.ones((50, 3), dtype=np.bool_)), engine, Presence())
    await anext(stream)
    engine.gate = asyncio.Event()
    engine.full.clear()
    waiting = asyncio.ensure_future(anext(stream))
    await engine.full.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    assert engine.now == 0
    assert len(engine.calls) < 50


async def test_a_client_that_leaves_ends_what_is_in_flight() -> None:
    engine = Engine(lambda prompt, whole: sound(-1, -1))
    engine.gate = asyncio.Event()
    left = asyncio.Event()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    serving = asyncio.ensure_future(
        Stream(lines(asked(warm=False), engine, Presence()))({"type": "http"}, receive, send)
    )
    await engine.full.wait()
    left.set()
    await serving
    assert engine.now == 0
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"application/x-ndjson")


async def test_a_whole_answer_over_asgi() -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("the client stays")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    engine = Engine(lambda prompt, whole: sound(-1, -1))
    await Stream(lines(asked(), engine, Presence()))({"type": "http"}, receive, send)
    bodies = [message["body"] for message in sent[1:]]
    assert b"".join(bodies).endswith(b'{"done": 4}\n')
    assert [message["more_body"] for message in sent[1:]] == [True] * 5 + [False]


# ---- room for production ----


async def test_production_ends_what_runs_and_it_is_asked_again_one_at_a_time() -> None:
    engine, production = Engine(lambda prompt, whole: sound(-1, -1)), Presence()
    engine.gate = asyncio.Event()
    found: list[dict[str, Any]] = []

    async def ask() -> None:
        async for line in lines(asked(warm=False, yields=True), engine, production):
            found.append(json.loads(line))  # noqa: PERF401 - seen as they come

    asking = asyncio.ensure_future(ask())
    await engine.full.wait()
    production.came()
    await until(lambda: len(found) == 4)
    assert found == [{"mask": number, "interrupted": True} for number in range(4)]
    assert engine.now == 0
    production.came()
    production.went()
    engine.gate.set()
    await asyncio.sleep(0.02)
    assert len(engine.calls) == 4, "one is still there"
    engine.most = 0
    production.went()
    await asking
    assert engine.most == 1
    assert [line.get("mask") for line in found[4:]] == [0, 1, 2, 3, None]
    assert found[-1] == {"done": 4}


async def test_nothing_is_begun_while_production_is_here_and_what_had_ended_is_told() -> None:
    production = Presence()

    class Arriving(Engine):
        async def ask(self, prompt: list[int], asked: Asked, *, whole: bool) -> Answer:
            answer = await super().ask(prompt, asked, whole=whole)
            if len(self.calls) == 2:
                production.came()  # just as the second mask is answered
            return answer

    engine = Arriving(lambda prompt, whole: sound(-1, -1))
    stream = lines(asked(warm=False, yields=True, in_flight=1), engine, production)
    told = [json.loads(await anext(stream)) for _ in range(2)]
    assert [line["mask"] for line in told] == [0, 1]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.02)
    assert len(engine.calls) == 2
    production.went()
    assert json.loads(await waiting)["mask"] == 2
    assert [json.loads(line).get("mask") async for line in stream] == [3, None]


async def test_who_does_not_yield_does_not_look() -> None:
    production = Presence()
    production.came()
    engine = Engine(lambda prompt, whole: sound(-1, -1))
    assert len([line async for line in lines(asked(yields=False), engine, production)]) == 5


@pytest.mark.parametrize("root", ["", "/api"])
@pytest.mark.parametrize(
    ("method", "path", "counts"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/v1/completions", True),
        ("POST", "/inference/v1/generate", True),
        ("POST", "/v1/spex/score", False),
        ("POST", "/tokenize", False),
        ("POST", "/detokenize", False),
        ("POST", "/v1/chat/completions/render", False),
        ("GET", "/metrics", False),
    ],
)
async def test_what_counts_as_production(method: str, path: str, counts: bool, root: str) -> None:
    """Also behind a proxy that leaves its prefix on, where uvicorn's `--root-path` names it."""
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(PRESENCE.is_here)
        raise OSError("the client is gone")

    scope = {"type": "http", "method": method, "path": root + path, "root_path": root, "headers": []}
    with pytest.raises(OSError, match="gone"):
        await Watch(app)(scope, None, None)
    await Watch(lambda *_: asyncio.sleep(0))({"type": "lifespan"}, None, None)
    assert seen == [counts]
    assert not PRESENCE.is_here


async def test_our_own_background_questions_are_not_production() -> None:
    """A re-test, or a game that asks the served model: nobody makes room for these."""
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(PRESENCE.is_here)

    for headers in ([(BACKGROUND, b"yes")], [(b"x-other", b"yes")]):
        await Watch(app)({"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}, None, None)
    assert seen == [False, True]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is a plain number
            await asyncio.sleep(0.001)
