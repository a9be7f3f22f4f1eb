"""What a model server says of itself, read only while somebody wants to know.

Our plugin tells the load after the engine's last step (`/v1/spex/load`), masked queries told apart: a small answer,
read ten times a second. Without it `/metrics` is read, twice a second. Preemptions stand in `/metrics` only.

Both are written after a step. An engine takes steps while it has work; when what waited was aborted, it takes none, and
the number of those that wait stays as it was. So an engine that does not move has nobody waiting.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from spex_proxy.facts.load import Production, Unseen
from spex_proxy.ports.gate.rules import ServerLoad
from spex_proxy.ports.reach import client_for

STEPS_EVERY_S = 0.1
METRICS_EVERY_S = 0.5
STALE_S = 2.0
PATIENCE_S = 2.0
PLUGIN_AGAIN_S = 30.0
"""A server without the plugin is asked for it again after so long: it may have been restarted with it."""
STILL_S = 5.0
"""Without a step for so long an engine is idle: longer than any step takes."""
_MOVES = ("vllm:prompt_tokens", "vllm:generation_tokens")
_NAMES = {"vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:num_preemptions", *_MOVES}


class ServerWatch:
    """The newest reading of one replica. `look` is called whenever somebody wants to know."""

    def __init__(self, base_url: str, api_key: str | None = None, ca: Path | None = None) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = client_for(base_url, ca, headers=headers, timeout=PATIENCE_S)
        self._newest: ServerLoad | Unseen | None = Unseen("the model server's load has not been read yet")
        self._metrics: ServerLoad | Unseen | None = None
        self._read_at = self._metrics_at = self._preempted_at = float("-inf")
        self._no_plugin_at = float("-inf")
        self._has_plugin = False
        self._preemptions = self._moves = -1.0
        self._moved_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def look(self) -> ServerLoad | Unseen | None:
        """The newest reading, and another one soon. None: the server has no such numbers."""
        age = time.monotonic() - self._read_at
        every = STEPS_EVERY_S if self._has_plugin else METRICS_EVERY_S
        if age > every and (self._reading is None or self._reading.done()):
            self._reading = asyncio.get_running_loop().create_task(self._read())
        if isinstance(self._newest, ServerLoad) and age > STALE_S + PATIENCE_S:
            return Unseen(f"the model server's load was read {age:.0f} s ago")
        return self._newest

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self._client.aclose()

    async def _read(self) -> None:
        steps = await self._steps()
        if steps is None or time.monotonic() - self._metrics_at > METRICS_EVERY_S:
            self._metrics = await self._of_metrics()
            self._metrics_at = time.monotonic()
        if isinstance(steps, ServerLoad) and not isinstance(self._metrics, Unseen):
            self._newest = replace(steps, since_preemption_s=time.monotonic() - self._preempted_at)
        else:
            self._newest = self._metrics if steps is None or isinstance(self._metrics, Unseen) else steps
        self._read_at = time.monotonic()

    async def _steps(self) -> ServerLoad | Unseen | None:
        """What the plugin says; None if it is not there, or its engine has taken no step yet."""
        if time.monotonic() - self._no_plugin_at < PLUGIN_AGAIN_S:
            return None
        try:
            response = await self._client.get("/v1/spex/load")
            self._has_plugin = response.status_code == 200
            if response.status_code in (404, 405):
                self._no_plugin_at = time.monotonic()
                return None
            return read_steps(response.json()) if response.status_code == 200 else _unseen(response)
        except (httpx.HTTPError, ValueError) as error:
            return Unseen(f"the model server's load can't be read: {type(error).__name__}")

    async def _of_metrics(self) -> ServerLoad | Unseen | None:
        try:
            response = await self._client.get("/metrics")
        except httpx.HTTPError as error:
            return Unseen(f"the model server's metrics can't be read: {type(error).__name__}")
        if response.status_code == 404:
            return None
        return self._parse(response.text) if response.status_code == 200 else _unseen(response)

    def _parse(self, text: str) -> ServerLoad | Unseen | None:
        found: dict[str, float] = {}
        try:
            for family in text_string_to_metric_families(text):
                if family.name in _NAMES:
                    values = [one.value for one in family.samples if not one.name.endswith("_created")]
                    found[family.name] = max(values) if family.name.endswith("_perc") else sum(values)
        except ValueError as error:
            return Unseen(f"the model server's metrics can't be read: {error}")
        if "vllm:num_requests_waiting" not in found:
            return None
        preemptions = found.get("vllm:num_preemptions", 0.0)
        if 0 <= self._preemptions < preemptions:
            self._preempted_at = time.monotonic()
        self._preemptions = preemptions
        moves = sum(found.get(name, 0.0) for name in _MOVES)
        if moves != self._moves or not any(name in found for name in _MOVES):
            self._moves, self._moved_at = moves, time.monotonic()
        is_still = time.monotonic() - self._moved_at > STILL_S
        return ServerLoad(
            waiting=0 if is_still else int(found["vllm:num_requests_waiting"]),
            kv_usage=found.get("vllm:kv_cache_usage_perc", 0.0),
            since_preemption_s=time.monotonic() - self._preempted_at,
        )


def read_steps(told: Any) -> ServerLoad | Unseen | None:
    """The plugin's reply as a load: of all engines of the server together, the fullest cache. None if no engine has
    taken a step. Pure."""
    engines = told.get("engines") if isinstance(told, dict) else None
    if not isinstance(engines, list) or not all(isinstance(engine, dict) for engine in engines):
        return Unseen("the model server's load can't be read: /v1/spex/load answered without `engines`")
    if not engines:
        return None
    names = ("waiting", "kv_usage", "age_s")
    numbers = [told.get("own"), told.get("in_flight", 0), *(engine.get(name) for engine in engines for name in names)]
    seen = told.get("production")
    if seen is not None:
        numbers += [seen.get("in_flight"), seen.get("awaiting_first")] if isinstance(seen, dict) else [None]
    if not all(isinstance(number, int | float) for number in numbers):
        return Unseen("the model server's load can't be read: /v1/spex/load lacks a number")
    return ServerLoad(
        waiting=sum(int(engine["waiting"]) for engine in engines if engine["age_s"] <= STILL_S),
        kv_usage=max(float(engine["kv_usage"]) for engine in engines),
        own=int(told["own"]),
        production=None if seen is None else Production(int(seen["in_flight"]), int(seen["awaiting_first"]), 0),
        in_flight=int(told.get("in_flight", 0)),
    )


def _unseen(response: httpx.Response) -> Unseen:
    path = response.request.url.path
    return Unseen(f"the model server's load can't be read: {path} answered {response.status_code}")
