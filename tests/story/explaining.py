"""Both stories inside the test's own process: asked through a real relay, stored in SQLite, explained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import httpx
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Engine

from spex_proxy.facts.explanation import Check, Explanation
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.token_budget import UNLIMITED, TokenBudget
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.explain import Parts
from spex_proxy.flows.intake import Intake
from spex_proxy.flows.save import save_captured
from spex_proxy.flows.transactions import write
from spex_proxy.flows.understand import Captured
from spex_proxy.flows.verify import verify
from spex_proxy.flows.work import Report, Retries, run_job
from spex_proxy.plug.load import Plugins
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.gate.gate import Gate
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.model_servers import ModelServers
from spex_proxy.ports.scorers.choose import Scorers
from spex_proxy.ports.telemetry import Telemetry, make_provider
from spex_proxy.store import outbox
from spex_proxy.store.connect import reading
from tests.story.running import relay, sampler

WORDS = ("Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot", "Golf", "Hotel", "India", "Juliet")
RECIPE = Recipe(segmenter="sentence", budget=80, target_r2=1.0)
"""Asks every mask of six players."""


def sentences(count: int) -> str:
    """`Alpha is here. Bravo is here. ...`: so many players, each with a word of its own."""
    return " ".join(f"{word} is here." for word in WORDS[:count])


def question(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **more}


@dataclass
class Desk:
    """Everything between an app and an explanation, except the processes."""

    upstream_url: str
    store: Engine
    recipe: Recipe = RECIPE
    plugins: Plugins = field(default_factory=Plugins)
    retries: Retries = Retries()  # noqa: RUF009 - frozen
    scorer: str = "completions"
    gate: Gate | None = None
    budget: TokenBudget = UNLIMITED
    orders: Orders | None = None
    counters: Counters = field(default_factory=Counters)
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._provider = make_provider("test", exporter=self.exporter)
        self.telemetry = Telemetry(self._provider, "test")

    def ask(self, body: Mapping[str, Any], path: str = "/v1/chat/completions", **headers: str) -> str:
        """Send a request as an app does, through a relay; returns our id of it, once it is stored."""
        saved: list[str] = []

        def save(batch: Sequence[Captured]) -> None:
            with self.store.begin() as connection:
                save_captured(connection, batch, self.recipe)
            saved.extend(captured.exchange.id for captured in batch)

        counters = Counters()
        intake = Intake(
            save=save,
            choose=sampler(1.0, 1.0, self.recipe).choose,
            trace=lambda c: self.telemetry.request_span(c.exchange, c.traceparent, c.tracestate),
            counters=counters,
        )
        intake.start()
        with relay(self.upstream_url, offer=intake.offer, counters=counters) as proxy:
            url = f"http://127.0.0.1:{proxy.port}{path}"
            sent = {"content-type": "application/json", **headers}
            reply = httpx.post(url, content=json.dumps(body), headers=sent, trust_env=False, timeout=60)
        assert intake.close(5) == 0
        assert reply.status_code == 200, reply.text
        assert saved == [reply.headers["x-spex-request-id"]], counters.snapshot()
        return saved[0]

    @contextmanager
    def parts(self) -> Iterator[Parts]:
        """What a worker holds. The client is closed by whoever runs the loop: see `work_off`."""

        @cache
        def scorers(server: ModelServer) -> Scorers:
            return Scorers(server, self.scorer, 100)

        servers = ModelServers([self.upstream_url])
        more = (100, self.gate, self.budget, self.counters, self.orders)
        yield Parts(self.store, servers, self.plugins, self.telemetry, scorers, *more)

    async def work_off(self, most_jobs: int = 10) -> list[Report]:
        """Run queued jobs until none is left (or `most_jobs` were run); their last reports, in order."""
        ends: list[Report] = []
        with self.parts() as parts:
            async with parts.servers:
                while len(ends) < most_jobs:
                    job = await write(self.store, outbox.claim, "test")
                    if job is None:
                        break
                    await run_job(job, parts, self.reports.append, retries=self.retries)
                    ends.append(self.reports[-1])
        return ends

    async def explanation(self) -> Explanation:
        """Of the one job that is queued."""
        (report,) = await self.work_off()
        assert report.explanation is not None, report.error
        return report.explanation

    def jobs(self, exchange_id: str) -> tuple[outbox.Job, ...]:
        with reading(self.store) as connection:
            return outbox.jobs_of_exchange(connection, exchange_id)

    def checks(self, explanation_id: str) -> list[Check]:
        with reading(self.store) as connection:
            return verify(connection, explanation_id, "default", self.plugins)

    def counted(self, name: str) -> float:
        """By the worker's counters."""
        return self.counters.value(name)

    def spans(self) -> tuple[ReadableSpan, ...]:
        """All spans that have ended so far."""
        self._provider.force_flush()
        return self.exporter.get_finished_spans()

    def queue_again(self, exchange_id: str, **changes: Any) -> None:
        with self.store.begin() as connection:
            outbox.enqueue(connection, exchange_id=exchange_id, recipe=replace(self.recipe, **changes), why="asked")

    def close(self) -> None:
        self.telemetry.close()


def count(store: Engine, table: str, where: str = "1=1") -> int:
    with reading(store) as connection:
        found = connection.exec_driver_sql(f"SELECT count(*) FROM {table} WHERE {where}").scalar_one()
    return int(found)
