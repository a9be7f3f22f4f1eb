"""What a model server says of its load: by our plugin step by step, by its metrics, or not at all; over sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from spex_proxy.facts.load import Unseen
from spex_proxy.ports.gate import server_load
from spex_proxy.ports.gate.rules import ServerLoad
from spex_proxy.ports.gate.server_load import ServerWatch, read_steps
from spex_proxy_vllm.board import Board
from tests.story.upstream import Seen, Step, Upstream, answer


class Server:
    """Answers the two routes as it is told to; None is a 404."""

    def __init__(self) -> None:
        self.steps: Any = None
        self.metrics: str | None = None
        self.asked: list[str] = []

    async def respond(self, seen: Seen) -> list[Step]:
        path = seen.target.decode()
        self.asked.append(path)
        told = self.steps if path == "/v1/spex/load" else self.metrics
        if told is None:
            return [answer(b"{}", status="404 Not Found")]
        body = told if isinstance(told, str) else json.dumps(told)
        return [answer(body.encode(), content_type="text/plain")]


@pytest.fixture
def server() -> Iterator[Server]:
    with Upstream() as upstream:
        made = Server()
        upstream.answers_by(made.respond)
        made.url = upstream.url  # type: ignore[attr-defined]
        yield made


def metrics(waiting: int, preemptions: int = 0, tokens: int = 100) -> str:
    rows = {"num_requests_waiting": waiting, "kv_cache_usage_perc": 0.25}
    counts = {"num_preemptions": preemptions, "prompt_tokens": tokens, "generation_tokens": 5}
    return "".join(
        [f'# TYPE vllm:{name} gauge\nvllm:{name}{{model_name="m"}} {value}\n' for name, value in rows.items()]
        + [f'# TYPE vllm:{n}_total counter\nvllm:{n}_total{{model_name="m"}} {v}\n' for n, v in counts.items()]
    )


def steps(waiting: int, own: int, age_s: float = 0.01) -> dict[str, Any]:
    engine = {"engine": 0, "step": 9, "running": 3, "waiting": waiting, "kv_usage": 0.5, "age_s": age_s}
    return {"plugin": "0", "protocol": 1, "own": own, "engines": [engine]}


async def seen(watch: ServerWatch, condition: Callable[[ServerLoad | Unseen | None], object]) -> Any:
    """The first reading of which it is true."""
    async with asyncio.timeout(20):
        while not condition(found := watch.look()):  # noqa: ASYNC110 - only looking makes it read
            await asyncio.sleep(0.01)
    return found


@pytest.fixture
async def watch(server: Server) -> Any:
    made = ServerWatch(server.url)  # type: ignore[attr-defined]
    yield made
    await made.close()


async def test_before_anything_was_read_nobody_knows(watch: ServerWatch) -> None:
    assert isinstance(watch.look(), Unseen)


async def test_a_server_with_neither_is_judged_by_the_board_alone(watch: ServerWatch) -> None:
    assert await seen(watch, lambda load: load is None) is None


async def test_metrics_where_there_is_no_plugin(server: Server, watch: ServerWatch) -> None:
    server.metrics = metrics(4)
    load = await seen(watch, lambda load: isinstance(load, ServerLoad))
    assert (load.waiting, load.kv_usage, load.own) == (4, 0.25, 0)
    server.metrics = metrics(0, tokens=200)
    await seen(watch, lambda load: isinstance(load, ServerLoad) and load.waiting == 0)
    assert server.asked.count("/v1/spex/load") == 1, "asked again after half a minute"


async def test_the_plugin_tells_of_each_step_and_whose_the_queries_are(server: Server, watch: ServerWatch) -> None:
    server.steps, server.metrics = steps(7, own=6), metrics(1)
    load = await seen(watch, lambda load: isinstance(load, ServerLoad))
    assert (load.waiting, load.own, load.kv_usage) == (7, 6, 0.5)
    server.steps = steps(2, own=0)
    await seen(watch, lambda load: isinstance(load, ServerLoad) and load.waiting == 2)
    assert server.asked.count("/v1/spex/load") > server.asked.count("/metrics")


async def test_a_preemption_is_seen_beside_the_plugin(
    server: Server, watch: ServerWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_load, "METRICS_EVERY_S", 0.0)
    server.steps, server.metrics = steps(0, own=0), metrics(0, preemptions=1)
    load = await seen(watch, lambda load: isinstance(load, ServerLoad))
    assert load.since_preemption_s == float("inf")
    server.metrics = metrics(0, preemptions=2)
    load = await seen(watch, lambda load: isinstance(load, ServerLoad) and load.since_preemption_s < 20)
    assert load.since_preemption_s >= 0


async def test_an_engine_that_does_not_move_has_nobody_waiting(
    server: Server, watch: ServerWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waited was aborted: the gauge stays as it was after the last step, and would keep us out for ever."""
    monkeypatch.setattr(server_load, "METRICS_EVERY_S", 0.0)
    monkeypatch.setattr(server_load, "STILL_S", 0.2)
    server.metrics = metrics(5)
    load = await seen(watch, lambda load: isinstance(load, ServerLoad))
    assert load.waiting == 5
    await seen(watch, lambda load: isinstance(load, ServerLoad) and load.waiting == 0)
    server.metrics = metrics(5, tokens=300)
    await seen(watch, lambda load: isinstance(load, ServerLoad) and load.waiting == 5)


def test_the_plugins_reply() -> None:
    two = steps(3, own=4) | {"engines": [*steps(3, 0)["engines"], steps(2, 0)["engines"][0] | {"kv_usage": 0.9}]}
    assert read_steps(two) == ServerLoad(5, 0.9, own=4)
    assert read_steps(steps(3, own=4, age_s=60)) == ServerLoad(0, 0.5, own=4)
    assert read_steps(steps(0, own=0) | {"in_flight": 3}) == ServerLoad(0, 0.5, own=0, in_flight=3)
    assert isinstance(read_steps(steps(0, own=0) | {"in_flight": "3"}), Unseen)
    assert read_steps({"own": 0, "engines": []}) is None
    board = Board()
    board.record(0, 2, 1, 0.125)
    assert read_steps(json.loads(json.dumps(board.read()))) == ServerLoad(1, 0.125)


@pytest.mark.parametrize(
    "told", [[], {}, {"engines": 3}, {"engines": [3]}, {"engines": [{}], "own": 0}, steps(1, 0) | {"own": None}]
)
def test_what_is_no_load_keeps_the_gate_shut(told: Any) -> None:
    assert isinstance(read_steps(told), Unseen)


@pytest.mark.parametrize("told", ["no json", "[]"])
async def test_a_plugin_that_babbles_is_an_unknown(server: Server, watch: ServerWatch, told: str) -> None:
    server.steps, server.metrics = told, metrics(0)
    found = await seen(watch, lambda load: isinstance(load, Unseen) and "can't be read" in load.why)
    assert isinstance(found, Unseen)
