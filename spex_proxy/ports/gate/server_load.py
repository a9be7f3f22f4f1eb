"""What vLLM says of itself at /metrics, read at most twice a second and only while somebody wants to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from spex_proxy.facts.load import Unseen
from spex_proxy.ports.gate.rules import ServerLoad
from spex_proxy.ports.reach import client_for

EVERY_S = 0.5
STALE_S = 2.0
PATIENCE_S = 2.0
_NAMES = {"vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:num_preemptions"}


class ServerMetrics:
    """The newest reading. `wanted` is called whenever somebody looks; nobody looking, nothing is asked."""

    def __init__(self, base_url: str, api_key: str | None = None, ca: Path | None = None) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = client_for(base_url, ca, headers=headers, timeout=PATIENCE_S)
        self._newest: ServerLoad | Unseen | None = Unseen("the model server's metrics have not been read yet")
        self._read_at = float("-inf")
        self._preemptions = -1.0
        self._preempted_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def look(self) -> ServerLoad | Unseen | None:
        """The newest reading, and another one soon. None: the server has no such numbers."""
        age = time.monotonic() - self._read_at
        if age > EVERY_S and (self._reading is None or self._reading.done()):
            self._reading = asyncio.get_running_loop().create_task(self._read())
        if isinstance(self._newest, ServerLoad) and age > STALE_S + PATIENCE_S:
            return Unseen(f"the model server's metrics are {age:.0f} s old")
        return self._newest

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self._client.aclose()

    async def _read(self) -> None:
        try:
            response = await self._client.get("/metrics")
        except httpx.HTTPError as error:
            self._newest = Unseen(f"the model server's metrics can't be read: {type(error).__name__}")
        else:
            if response.status_code == 404:
                self._newest = None
            elif response.status_code == 200:
                self._newest = self._parse(response.text)
            else:
                self._newest = Unseen(f"the model server's metrics can't be read: status {response.status_code}")
        self._read_at = time.monotonic()

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
        return ServerLoad(
            waiting=int(found["vllm:num_requests_waiting"]),
            kv_usage=found.get("vllm:kv_cache_usage_perc", 0.0),
            since_preemption_s=time.monotonic() - self._preempted_at,
        )


def busiest(readings: Sequence[ServerLoad | Unseen | None]) -> ServerLoad | Unseen | None:
    """Several replicas as one: the gate is one for all of them, so the worst of each number holds."""
    loads = []
    for one in readings:
        if isinstance(one, Unseen):
            return one
        if one is not None:
            loads.append(one)
    if not loads:
        return None
    return ServerLoad(
        waiting=max(load.waiting for load in loads),
        kv_usage=max(load.kv_usage for load in loads),
        since_preemption_s=min(load.since_preemption_s for load in loads),
    )
