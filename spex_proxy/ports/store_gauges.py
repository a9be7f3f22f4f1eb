"""What /metrics says of the jobs: read from the store whenever somebody looks, since workers share no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class JobNumbers:
    """The jobs of all projects that are not over, at one moment."""

    by_state: Mapping[str, int]
    oldest_waiting_s: float | None
    """Age of the oldest job that a worker could take now; None if none waits."""
    workers: int
    """Those that were heard of lately."""


class StoreGauges(Collector):
    """Register it with the registry that is shown. A store that can't be read is said to be down, and nothing else:
    a number that is missing raises an alarm, an old one hides it."""

    def __init__(self, read: Callable[[], JobNumbers]) -> None:
        self._read = read

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Named without a look at the store."""
        return iter(_families(None))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            numbers = self._read()
        except Exception:  # noqa: BLE001 - whatever it is, a scrape gets the numbers that there are
            numbers = None
        return iter(_families(numbers))


def _families(numbers: JobNumbers | None) -> list[GaugeMetricFamily]:
    up = GaugeMetricFamily("spex_store_up", "1 if the store can be read, else 0; then nothing is said of jobs.")
    jobs = GaugeMetricFamily("spex_jobs", "Jobs of all projects that are not over, by state.", labels=["state"])
    oldest = GaugeMetricFamily(
        "spex_oldest_waiting_job_seconds", "Age of the oldest job that a worker could take now; 0 if none waits."
    )
    workers = GaugeMetricFamily("spex_workers", "Workers that were heard of in the last minute.")
    up.add_metric([], float(numbers is not None))
    if numbers is not None:
        for state, count in numbers.by_state.items():
            jobs.add_metric([state], count)
        oldest.add_metric([], numbers.oldest_waiting_s or 0.0)
        workers.add_metric([], numbers.workers)
    return [up, jobs, oldest, workers]
