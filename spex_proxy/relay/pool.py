"""Connections to the upstreams: kept while they are warm, opened when they are wanted, never rationed."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Sequence
from typing import Protocol

from spex_proxy.relay.addresses import Address
from spex_proxy.relay.replicas import Replica, choose
from spex_proxy.relay.upstream import Upstream

_LOG = logging.getLogger(__name__)

IDLE_S = 2.0
"""vLLM's server closes connections that were idle for 5 s. Ours must go first: a request sent into a
connection that the other side is just closing is lost, and a POST can't be sent again."""
_PROBE_S = 1.0
"""How often an upstream that was found down is looked at, while others serve."""


class Asking(Protocol):
    """Who wants a connection: an exchange. Neither method raises."""

    def connected(self, upstream: Upstream) -> None:
        """Here it is."""

    def not_connected(self, error: BaseException) -> None:
        """There is none to be had."""


class Pool:
    """The upstreams of one process."""

    def __init__(
        self, addresses: Sequence[Address], connect_timeout_s: float, tls: ssl.SSLContext | None = None
    ) -> None:
        """`tls` is for the addresses that want it."""
        self.replicas = tuple(Replica(address) for address in addresses)
        self._timeout_s = connect_timeout_s
        self._idle: dict[Replica, list[Upstream]] = {replica: [] for replica in self.replicas}
        """The connection used last stands last: it is taken first, so that the others grow old and are closed."""
        self._turn = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._probing: asyncio.Task[None] | None = None

    def acquire(self, asking: Asking, *, fresh: bool = False) -> None:
        """Call `asking.connected` now; or call it, or `asking.not_connected`, as soon as that is known.

        `fresh` wants a connection that never served. Whoever no longer wants the connection releases it.
        """
        self._turn += 1
        replica = choose(self.replicas, (), self._turn)
        assert replica is not None, "there is at least one"
        replica.in_flight += 1
        idle = self._idle[replica]
        while idle and not fresh:
            upstream = idle.pop()
            if upstream.is_usable(time.monotonic() - IDLE_S) and not upstream.has_something_to_read():
                asking.connected(upstream)
                return
            upstream.close()
        task = asyncio.get_running_loop().create_task(self._connect(replica, asking))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def release(self, upstream: Upstream) -> None:
        """An answer has ended well and nothing more is owed: the connection may serve again."""
        upstream.replica.in_flight -= 1
        upstream.idle_since = time.monotonic()
        self._idle[upstream.replica].append(upstream)

    def drop(self, upstream: Upstream, *, at_once: bool) -> None:
        """The connection serves no more."""
        upstream.replica.in_flight -= 1
        upstream.abort() if at_once else upstream.close()

    def forget(self, upstream: Upstream) -> None:
        """An idle connection was closed by the other side."""
        idle = self._idle[upstream.replica]
        if upstream in idle:
            idle.remove(upstream)

    def close_idle(self, older_than_s: float = IDLE_S) -> None:
        """Called now and then."""
        limit = time.monotonic() - older_than_s
        for idle in self._idle.values():
            old = [upstream for upstream in idle if upstream.idle_since <= limit]
            idle[:] = [upstream for upstream in idle if upstream.idle_since > limit]
            for upstream in old:
                upstream.close()

    async def close(self) -> None:
        self.close_idle(-1.0)
        tasks = [*self._tasks, *([self._probing] if self._probing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, replica: Replica, asking: Asking) -> None:
        tried: list[Replica] = []
        while True:
            try:
                upstream = await self._open(replica)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client must be told
                replica.in_flight -= 1
                tried.append(replica)
                self._found_down(replica, error)
                # nothing was sent yet: another one may be asked
                other = choose(self.replicas, tried, self._turn)
                if other is None:
                    asking.not_connected(error)
                    return
                replica = other
                replica.in_flight += 1
                continue
            replica.is_down = False
            asking.connected(upstream)
            return

    async def _open(self, replica: Replica) -> Upstream:
        address, loop = replica.address, asyncio.get_running_loop()
        tls = self._tls if address.is_tls else None
        async with asyncio.timeout(self._timeout_s):
            if address.is_unix:
                _, upstream = await loop.create_unix_connection(lambda: Upstream(self.forget, replica), address.host)
            else:
                _, upstream = await loop.create_connection(
                    lambda: Upstream(self.forget, replica), address.host, address.port, ssl=tls
                )
        return upstream

    def _found_down(self, replica: Replica, error: BaseException) -> None:
        if len(self.replicas) == 1 or replica.is_down:
            return
        _LOG.warning("upstream %s is down: %s", replica.address.url, error)
        replica.is_down = True
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        """Look at those that are down until none is."""
        while down := [replica for replica in self.replicas if replica.is_down]:
            await asyncio.sleep(_PROBE_S)
            for replica in down:
                try:
                    upstream = await self._open(replica)
                except (OSError, TimeoutError):
                    continue
                upstream.close()
                replica.is_down = False
                _LOG.warning("upstream %s is up again", replica.address.url)
