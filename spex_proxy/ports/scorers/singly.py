"""Probes that are asked one by one, a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from spex_proxy.facts.errors import UpstreamBusy
from spex_proxy.ports.scorers import Scored


async def singly(numbers: Sequence[int], in_flight: int, scored: Scored, ask: Callable[[int], Awaitable[None]]) -> None:
    """Have `ask` answer each of the probes into `scored`, at most `in_flight` at once.

    A server that was too busy for some of them costs only those. Raises what `ask` raises otherwise, and UpstreamBusy
    if nothing was answered at all.
    """
    room = asyncio.Semaphore(in_flight)

    async def in_turn(number: int) -> None:
        async with room:
            await ask(number)

    ends = await asyncio.gather(*map(in_turn, numbers), return_exceptions=True)
    for failure in [end for end in ends if end is not None]:
        if not any(scored.readings) or not isinstance(failure, UpstreamBusy):
            raise failure
