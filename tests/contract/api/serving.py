"""The second port on a real socket, over a real store that the store's own functions filled."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from json import dumps
from typing import Any

import httpx
import sqlalchemy as sa

from spex_proxy.facts.explanation import Check
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.retest import ask_retest
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.store import cases, explanations, games, outbox
from spex_proxy.store.exchanges import Kept, erase_content, save_captured
from spex_proxy.web.api import PREFIX
from spex_proxy.web.app import make_app
from spex_proxy.web.doors import Doors
from spex_proxy.web.server import serve
from tests.contract.store.samples import NOON, Make

RECIPE = Recipe(segmenter="sentence", budget=64)
LONG_AGO = NOON - timedelta(days=9)
"""For what a test adds: outside the lists that other tests look at."""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CHECKS = [Check("links", True, "3 blocks"), Check("text", True, "erased", is_skipped=True)]


@dataclass
class Filled:
    """What the store holds, by what became of it."""

    plain: str = ""
    explained: str = ""
    upstream_id: str = ""
    explanation: str = ""
    erased: str = ""
    erased_explanation: str = ""
    failed: str = ""
    queued: str = ""
    job: str = ""
    """Queued, of `queued`."""
    retest: str = ""
    """Queued, of `explained`."""
    done: str = ""
    """Done, of `explained`."""
    case: str = ""
    """Of `explained`, in a queue that no other test looks at."""


def fill(engine: sa.Engine, make: Make) -> Filled:
    """Five exchanges, a second apart, the first the newest."""
    with engine.begin() as conn:
        ids = [make.saved(conn, received_at=NOON - timedelta(seconds=i)).id for i in range(5)]
        plain, explained, erased, failed, queued = ids
        upstream_id = str(conn.scalar(sa.text("select upstream_id from exchanges where id = :id"), {"id": explained}))
        filled = Filled(plain, explained, upstream_id, erased=erased, failed=failed, queued=queued)
        filled.done = outbox.enqueue(conn, exchange_id=explained, recipe=make.recipe, why="drawn")
        job = outbox.claim(conn, "w", job_id=filled.done)
        assert job is not None
        filled.explanation = explain(conn, make, explained)
        outbox.finish(conn, job, filled.explanation)
        filled.erased_explanation = explain(conn, make, erased)
        erase_content(conn, erased, NOON)
        bad = outbox.enqueue(conn, exchange_id=failed, recipe=make.recipe, why="drawn")
        job = outbox.claim(conn, "w", job_id=bad)
        assert job is not None
        outbox.fail(conn, job, "the prompt has no text", final=True)
        filled.job = outbox.enqueue(conn, exchange_id=queued, recipe=make.recipe, why="drawn")
        filled.retest = ask_retest(conn, filled.explanation, [0], who="ann", project="default").retest.id
        filled.case = cases.open_case(conn, explained, why="person", who="ann", queue="filled").id
    return filled


def explain(conn: sa.Connection, make: Make, exchange_id: str, project: str = "default", **changes: Any) -> str:
    """An explanation with two blocks of evidence; its noise ceiling is minus infinity."""
    game = games.save_game(conn, make.game(exchange_id, project=project))
    for number in range(2):
        games.append_block(conn, game.id, make.block(number), project=project)
    made = make.explanation(exchange_id, (game.id,), project=project, **changes)
    explanations.save_explanation(conn, made)
    return made.id


def traced(conn: sa.Connection, make: Make, trace: Any) -> str:
    exchange = make.exchange(received_at=LONG_AGO)
    save_captured(conn, [Kept(exchange, trace, None, None, explain=False, why="no", explain_probability=0.0)])
    return exchange.id


@dataclass
class Behind:
    """What the doors lead to, for tests to change while the server runs."""

    engine: sa.Engine
    checks: Sequence[Check] = field(default_factory=lambda: CHECKS)
    trouble: Exception | None = None
    is_stopping: bool = False
    host: str = "127.0.0.1"
    names: tuple[str, ...] = ()

    def store(self) -> sa.Engine:
        if self.trouble is not None:
            raise self.trouble
        return self.engine

    def doors(self) -> Doors:
        return Doors(
            store=self.store,
            project="default",
            recipe=RECIPE,
            plugins=Plugins(),
            verify=lambda _id, _project: self.checks,
            is_stopping=lambda: self.is_stopping,
            host=self.host,
            names=self.names,
        )

    def app(self) -> Any:
        return make_app("0.0.test", Counters(), lambda: None, self.doors())


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The base URL of the application on a loopback port of its own."""
    started: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        await serve(app, "127.0.0.1", 0, stop=stop, ready=lambda port: started.put((port, loop, stop)), grace_s=3)

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="second-port-under-test")
    thread.start()
    port, loop, stop = started.get(timeout=10)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()


@dataclass
class Api:
    """A running second port."""

    url: str
    behind: Behind
    filled: Filled
    make: Make
    http: httpx.Client

    @property
    def engine(self) -> sa.Engine:
        return self.behind.engine

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.http.get(f"{self.url}{PREFIX}{path}", params=params)

    def post(self, path: str, json: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if json is None else dumps(json)
        if content is not None:
            named["content-type"] = "application/json"
        return self.http.post(f"{self.url}{PREFIX}{path}", content=content, headers=named)

    def ok(self, path: str, **params: Any) -> Any:
        answer = self.get(path, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()


def fault(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, whose shape is checked."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert {"message", "type", "code"} <= set(error) <= {"message", "type", "code", "where"}
    assert all(isinstance(value, str) and value for value in error.values())
    assert error["type"] == ("server_error" if status >= 500 or status == 429 else "invalid_request_error")
    return error
