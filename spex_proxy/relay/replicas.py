"""Which upstream gets the next request: the one that is up and has the fewest in flight."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from spex_proxy.relay.addresses import Address


@dataclass(slots=True, eq=False)
class Replica:
    """One upstream, and how it does."""

    address: Address
    in_flight: int = 0
    is_down: bool = False
    """The last attempt to connect failed. It gets no requests until one succeeds, unless all are down."""


def choose(replicas: Sequence[Replica], tried: Collection[Replica], turn: int) -> Replica | None:
    """The least busy of those that are up and not yet tried; if none is up, of those that are down.

    `turn` goes up by one with each request, so that ties go round. None if all were tried.
    """
    count = len(replicas)
    if count == 1:
        return None if tried else replicas[0]
    best: Replica | None = None
    for step in range(count):
        one = replicas[(turn + step) % count]
        if one not in tried and (best is None or (one.is_down, one.in_flight) < (best.is_down, best.in_flight)):
            best = one
    return best
