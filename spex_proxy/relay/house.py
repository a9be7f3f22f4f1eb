"""What all connections of one relay share."""

from __future__ import annotations

from collections.abc import Sequence

from spex_proxy.ports.counters import Counters
from spex_proxy.ports.load_board import Slot
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
        board: Slot | None = None,
    ) -> None:
        """`board`: where production is counted for the workers' gate.

        Raises SettingsError for an address that can't be an upstream's.
        """
        self.pool = Pool([read_address(url) for url in upstreams], connect_timeout_s)
        self.watcher = watcher
        self.counters = counters
        self.board = board
        self.tick = 0
        """Goes up once a second: all that idle connections need of a clock."""
        self.is_draining = False
