"""The client's connection, as an exchange sees it."""

from __future__ import annotations

from typing import Protocol


class Caller(Protocol):
    """Where the answer goes."""

    @property
    def is_full(self) -> bool:
        """The client does not read as fast as the upstream writes."""
        ...

    def write(self, data: bytes) -> None:
        """Towards the client."""

    def pause_upload(self, wanted: bool) -> None:
        """Read no more of the client's body for now; or read on."""

    def become_tunnel(self, first: bytes) -> None:
        """Write this; from now on all bytes belong to the tunnel."""

    def break_off(self, *, framed: bool) -> None:
        """End an answer so that the client sees that something is missing."""

    def exchange_over(self, *, keeps: bool) -> None:
        """The exchange has ended; `keeps`: the connection may serve another."""
