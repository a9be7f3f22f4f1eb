"""What all connections of one relay share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spex_proxy.ports.counters import Counters
from spex_proxy.ports.load_board import Slot
from spex_proxy.ports.reach import tls_context
from spex_proxy.relay.addresses import read_address
from spex_proxy.relay.bystander import Watcher
from spex_proxy.relay.pool import Pool


class House:
    """One relay: every method and path goes to an upstream, the answer comes back as it is."""

    def __init__(
        self,
        upstreams: Sequence[str],
        watcher: Watcher,
        counters: Counters,
        *,
        connect_timeout_s: float = 10.0,
        ca: Path | None = None,
        board: Slot | None = None,
    ) -> None:
        """`ca`: a PEM file with the authorities that sign upstreams' certificates; None: the system's.
        `board`: where production is counted for the workers' gate.

        Raises SettingsError for an address that can't be an upstream's, and for a file without certificates.
        """
        addresses = [read_address(url) for url in upstreams]
        tls = tls_context(ca) if any(address.is_tls for address in addresses) else None
        self.pool = Pool(addresses, connect_timeout_s, tls)
        self.watcher = watcher
        self.counters = counters
        self.board = board
        self.tick = 0
        """Goes up once a second: all that idle connections need of a clock."""
        self.is_draining = False

    @staticmethod
    def check(upstreams: Sequence[str], ca: Path | None) -> None:
        """Raises SettingsError for what `House` refuses."""
        if any(read_address(url).is_tls for url in upstreams):
            tls_context(ca)
