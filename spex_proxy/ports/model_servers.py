"""Several replicas of one model server: each explanation asks one of them, from its first mask to its last.

Two replicas may differ in the last bits of a log-probability, and what one has cached of a prompt the other has
not. So the choice follows the exchange: whoever goes on with an explanation comes back to the same replica, and
many explanations spread over all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from spex_proxy.facts.errors import UpstreamBusy
from spex_proxy.ports.model_server import ModelServer


class ModelServers:
    """Clients of all replicas. Use as a context manager."""

    def __init__(
        self,
        base_urls: Sequence[str],
        api_key: str | None = None,
        ca: Path | None = None,
        marks: Mapping[str, str] | None = None,
    ) -> None:
        self.replicas = tuple(ModelServer(url, api_key, ca, marks) for url in base_urls)

    async def __aenter__(self) -> ModelServers:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.replicas:
            await server.close()

    async def choose(self, exchange_id: str) -> ModelServer:
        """The replica of this exchange; if it is down, the next that is up. Raises UpstreamBusy if none is."""
        order = preference(exchange_id, [server.base_url for server in self.replicas])
        if len(order) == 1:
            return self.replicas[0]  # its own answers say what is wrong, better than a look could
        for number in order:
            if await self.replicas[number].is_up():
                return self.replicas[number]
        raise UpstreamBusy(f"none of the {len(order)} replicas of the model server answers")


def preference(exchange_id: str, base_urls: Sequence[str]) -> list[int]:
    """Places of the replicas in the order in which this exchange wants them: highest random weight (Thaler and
    Ravishankar 1998), so that a replica which goes or comes moves no other exchange. Pure."""
    return sorted(
        range(len(base_urls)),
        key=lambda number: hashlib.sha256(f"{exchange_id} {base_urls[number]}".encode()).digest(),
        reverse=True,
    )
