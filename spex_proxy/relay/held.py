"""A client who sees the end of an answer once it was kept: durable hand-off (flows.relay.Hold has the contract).

It stands between an exchange and its client, passes everything on, and from `begin` on keeps the order and waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from spex_proxy.facts.exchange import RawExchange
from spex_proxy.flows.relay import Hold
from spex_proxy.ports.counters import Counters
from spex_proxy.relay.caller import Caller

_MOST_HELD = 1024 * 1024
"""Bytes that may wait; an upstream that goes on after the end of its answer is not waited for."""


class Held:
    """A Caller whose answer's end may wait. One for one exchange."""

    __slots__ = ("_client", "_counters", "_held", "_hold", "_loop", "_size", "_timer", "_waits")

    def __init__(self, client: Caller, hold: Hold, counters: Counters) -> None:
        self._client = client
        self._hold = hold
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._held: list[Callable[[], None]] = []
        self._size = 0
        self._waits = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """What is written from now on is the end of the answer."""
        if not self._waits and self._timer is None:
            self._waits = True
            self._timer = self._loop.call_later(self._hold.most_s, self._release, "late")

    def keep(self, raw: RawExchange) -> None:
        """The answer is complete: its end goes out once this is on disk."""
        self.begin()
        if not self._hold.keep(raw, self._then):
            self._release("unkept")

    def let_go(self) -> None:
        """There is nothing to be kept, or nothing more will come."""
        self._release("")

    def _then(self, is_kept: bool) -> None:
        """From the spool's thread."""
        try:
            self._loop.call_soon_threadsafe(self._release, "kept" if is_kept else "unkept")
        except RuntimeError:  # the loop has ended, and the client with it
            pass

    def _release(self, outcome: str) -> None:
        if not self._waits:
            return
        self._waits = False
        if self._timer is not None:
            self._timer.cancel()
        if outcome:
            self._counters.add("held_answers", outcome)
        held, self._held = self._held, []
        for act in held:
            act()

    # ---- Caller

    @property
    def is_full(self) -> bool:
        return self._client.is_full

    def write(self, data: bytes) -> None:
        if not self._waits:
            self._client.write(data)
            return
        self._held.append(lambda: self._client.write(data))
        self._size += len(data)
        if self._size > _MOST_HELD:
            self._release("late")

    def pause_upload(self, wanted: bool) -> None:
        self._client.pause_upload(wanted)

    def become_tunnel(self, first: bytes) -> None:
        self._client.become_tunnel(first)

    def break_off(self, *, framed: bool) -> None:
        self._act(lambda: self._client.break_off(framed=framed))

    def exchange_over(self, *, keeps: bool) -> None:
        self._act(lambda: self._client.exchange_over(keeps=keeps))

    def _act(self, act: Callable[[], None]) -> None:
        if self._waits:
            self._held.append(act)
        else:
            act()
