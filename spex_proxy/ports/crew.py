"""Several relay processes seen as one: their counters added up, what troubles any of them.

A process is asked when somebody looks, and every second besides: of one that dies, its last numbers stay in the
sums, so that no sum ever goes back. What waited in it is counted as dropped (`process_died`), or as left where it
lies in the spool.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spex_proxy.ports.counters import COUNTERS, GAUGES, Counters, Measure, Snapshot
from spex_proxy.ports.link import Link

_LOG = logging.getLogger(__name__)

_EVERY_S = 1.0
_PATIENCE_S = 1.0
"""For one answer; who is slower is shown as it was."""
_CAME = ("offered_exchanges", "replayed_exchanges")
_WENT = ("skipped_exchanges", "dropped_exchanges", "stored_exchanges", "known_exchanges", "left_exchanges")


class Crew(Collector):
    """What a parent knows of its relays. Made on its loop; shown from any thread."""

    def __init__(self, own: Counters, *, is_durable: bool) -> None:
        """`own` counts what only the parent sees."""
        self._own = own
        self._is_durable = is_durable
        self._links: list[Link] = []
        self._gone: Snapshot = {}
        """Counters of processes that are no more."""
        self._loop = asyncio.get_running_loop()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def joined(self, end: socket.socket) -> None:
        """A process was started (ports.processes.Program.linked)."""
        self._links = [*self._links, Link(end, self._ended)]

    @property
    def serving(self) -> int:
        """Processes that have answered."""
        return sum(link.told is not None for link in self._links)

    def trouble(self, place: str) -> str | None:
        """What one of them says is wrong there."""
        told = (link.told for link in self._links)
        return next((one.troubles[place] for one in told if one is not None and place in one.troubles), None)

    async def keep_asking(self) -> None:
        """Until cancelled."""
        while True:
            await self._ask()
            await asyncio.sleep(_EVERY_S)

    async def close(self) -> None:
        for link in self._links:
            await link.close()

    # ---- Shown

    def snapshot(self) -> Snapshot:
        """The sums, after asking all of them. Not from the loop's own thread."""
        asyncio.run_coroutine_threadsafe(self._ask(), self._loop).result(2 * _PATIENCE_S)
        return self._sums()

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    # ---- Collector

    def describe(self) -> Iterable[Metric]:
        return _families({})

    def collect(self) -> Iterable[Metric]:
        return _families(self.snapshot())

    # ----

    async def _ask(self) -> None:
        await asyncio.gather(*(link.ask(_PATIENCE_S) for link in self._links))

    def _ended(self, link: Link) -> None:
        self._links = [one for one in self._links if one is not link]
        if link.told is None:
            return
        counts = link.told.counts
        self._gone = total((self._gone, {m.name: counts[m.name] for m in COUNTERS if m.name in counts}))
        if waited := sum(_sum(counts, n) for n in _CAME) - sum(_sum(counts, n) for n in _WENT):
            if self._is_durable:
                self._own.add("left_exchanges", by=max(0.0, waited))
            else:
                self._own.add("dropped_exchanges", "process_died", max(0.0, waited))

    def _sums(self) -> Snapshot:
        told = [link.told.counts for link in self._links if link.told is not None]
        return total((self._own.snapshot(), self._gone, *told))


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Several processes' numbers as those of one. Pure."""
    measures = {measure.name: measure for measure in COUNTERS + GAUGES}
    out: Snapshot = {}
    for snapshot in snapshots:
        for name, number in snapshot.items():
            if name in measures:
                out[name] = _joined(measures[name], out.get(name), number)
    return out


def _joined(
    measure: Measure, one: float | dict[str, float] | None, other: float | dict[str, float]
) -> float | dict[str, float]:
    if isinstance(other, dict):
        labels: Mapping[str, float] = one if isinstance(one, dict) else {}
        return {label: labels.get(label, 0.0) + other.get(label, 0.0) for label in [*labels, *other]}
    if not isinstance(one, float | int):
        return other
    return max(one, other) if measure.joined == "max" else one + other


def _sum(snapshot: Snapshot, name: str) -> float:
    found = snapshot.get(name, 0.0)
    return sum(found.values()) if isinstance(found, dict) else found


def _families(numbers: Snapshot) -> Iterator[Metric]:
    for measure in COUNTERS:
        counter = CounterMetricFamily(measure.exported, measure.help, labels=[measure.label] if measure.label else None)
        found = numbers.get(measure.name)
        if isinstance(found, dict):
            for label, value in found.items():
                counter.add_metric([label], value)
        elif found is not None:
            counter.add_metric([], found)
        yield counter
    for measure in GAUGES:
        gauge = GaugeMetricFamily(measure.exported, measure.help)
        gauge.add_metric([], _sum(numbers, measure.name))
        yield gauge
