"""Every number that we count, in one table. Losses are counted where they happen, so none is silent.

One `Counters` per process, handed to whoever counts; it owns its Prometheus registry, so
two of them (in tests, in one process) never meet. A new number is a new line of COUNTERS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the table: the name in the code, the help for people, at most one label."""

    name: str
    help: str
    label: str | None = None
    joined: Literal["sum", "max"] = "sum"
    """How the numbers of several processes become one."""

    @property
    def exported(self) -> str:
        return f"spex_{self.name}"


COUNTERS: tuple[Measure, ...] = (
    Measure(
        "relayed_requests",
        "Requests relayed, by outcome: the answer's status class, client_gone, upstream_broken, or our own "
        "error's code where no answer could be had.",
        "outcome",
    ),
    Measure("watched_requests", "Requests that were chosen for capture when they arrived."),
    Measure(
        "offered_exchanges",
        "Watched requests that ended. With replayed_exchanges, the sum of skipped, dropped, stored, known and left "
        "exchanges and of those that wait.",
    ),
    Measure("replayed_exchanges", "Exchanges found in the spool of a process that ended before they were stored."),
    Measure(
        "known_exchanges",
        "Exchanges that were in the store already: replayed, or saved by an attempt that seemed to fail.",
    ),
    Measure(
        "held_answers",
        "Answers whose end waited for the spool, by outcome: kept, unkept (the spool can't be written, or is full), "
        "late (the deadline came first).",
        "outcome",
    ),
    Measure(
        "spool_damage", "Records of a spool that could not be read, by kind: torn (the end of a file), corrupt.", "kind"
    ),
    Measure("captured_exchanges", "Watched requests whose request and answer were understood."),
    Measure("skipped_exchanges", "Watched requests not kept, by reason (wire.tap.SKIP_REASONS).", "reason"),
    Measure("dropped_exchanges", "Watched requests lost to a bound or a failing store, by reason.", "reason"),
    Measure("stored_exchanges", "Exchanges written to the store."),
    Measure(
        "left_exchanges",
        "Exchanges in the spool of a relay process that died while others of its port lived; one of them replays them.",
    ),
    Measure("relay_restarts", "Relay processes that were started again (--workers)."),
    Measure("explain_chosen", "Stored exchanges that were chosen to be explained."),
    Measure(
        "explain_capped", "Stored exchanges that were chosen, but whose rule had no jobs left (per_minute, per_day)."
    ),
    Measure(
        "unexplainable_exchanges", "Captured exchanges that can't be explained (facts.exchange.OBSTACLES).", "reason"
    ),
    Measure("rules_loaded", "Changed rules files that were read, by result: accepted, refused.", "result"),
    Measure("refused_overrides", "Requests whose x-spex-explain was not obeyed: its caller may not use it."),
    Measure(
        "exact_token_ids",
        "Requests under a rule with exact_token_ids: asked, not_asked; and answers that passed with their ids: "
        "passed_encoded, passed_sized, passed_too_large, passed_fault.",
        "outcome",
    ),
    Measure("flagger_failures", "Looks of a flagger that failed, by flagger; what it looked at was kept.", "flagger"),
    Measure(
        "rule_actions",
        "What rules with `do` did: explain, explained_already, cannot_explain, capped, review, keep, webhook.",
        "kind",
    ),
    Measure(
        "handed_over",
        "Exchanges that vLLM's capture middleware handed over, by outcome: unwatched, skipped, taken, dropped, fault.",
        "outcome",
    ),
    Measure(
        "handover_lost",
        "Exchanges that the middleware could not hand over, as it told later, by reason: memory_full, too_large, "
        "refused, shutdown, fault.",
        "reason",
    ),
    Measure("webhooks", "Notices to webhooks, by outcome of a try: sent, failed (tried again), given_up.", "outcome"),
    Measure(
        "gate_batches",
        "Batches of masked queries that the gate let through, by outcome: answered, aborted (production came), failed.",
        "outcome",
    ),
    Measure(
        "unanswered_batches",
        "Batches of masked queries that ended before all of it was answered: production came, the server refused, "
        "the connection broke. They are asked again.",
    ),
    Measure("unanswered_masks", "Masks in those batches that had no answer."),
    Measure("unanswered_most_tokens", "Prompt tokens that the server can have read for those masks, at most."),
    Measure("save_retries", "Attempts to write a batch again after the store failed."),
    Measure("faults", "Failures of our own code that production never saw, by place.", "place"),
)

GAUGES: tuple[Measure, ...] = (
    Measure("intake_queue_items", "Watched exchanges that wait to be written."),
    Measure("intake_queue_bytes", "Bytes of the watched exchanges that wait to be written."),
    Measure("spool_items", "Exchanges in the spool that are not stored yet."),
    Measure("spool_bytes", "Bytes that the spool takes on disk."),
    Measure("tapped_bytes", "Bytes held by requests that are being watched right now."),
    Measure("rules_stale", "1 while the rules file has an error and the rules before it hold, else 0.", joined="max"),
    Measure("relay_processes", "Processes that serve the relay port."),
)

Snapshot = dict[str, float | dict[str, float]]


class Shown(Protocol):
    """What the second port shows: the counters of one process, or of several together."""

    registry: CollectorRegistry

    def snapshot(self) -> Snapshot:
        """All numbers, for people: name -> number, or name -> label value -> number."""
        ...

    def exposition(self) -> bytes:
        """The same in Prometheus' text format."""
        ...


class Counters:
    """All counters of one process. Safe to use from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters = {m.name: _counter(m, self.registry) for m in COUNTERS}
        self._gauges = {m.name: Gauge(m.exported, m.help, registry=self.registry) for m in GAUGES}
        # A labelled child is looked up once: prometheus-client takes a lock and hashes on every `labels()`.
        self._children: dict[tuple[str, str], Counter] = {}

    def add(self, name: str, label: str = "", by: float = 1) -> None:
        """Count `by` more. `label` is the value of the counter's one label, if it has one."""
        child = self._children.get((name, label))
        if child is None:
            counter = self._counters[name]
            child = counter.labels(label) if label else counter
            self._children[(name, label)] = child
        child.inc(by)

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Let a gauge read its value from `read` whenever somebody looks."""
        self._gauges[name].set_function(read)

    def value(self, name: str, label: str = "") -> float:
        """What a counter stands at; 0 if it was never touched."""
        found = self.snapshot()[name]
        return found.get(label, 0.0) if isinstance(found, dict) else found

    def snapshot(self) -> Snapshot:
        """All numbers, for people: name -> number, or name -> label value -> number."""
        out: Snapshot = {}
        for measure in COUNTERS + GAUGES:
            source = self._counters.get(measure.name) or self._gauges[measure.name]
            samples = [s for m in source.collect() for s in m.samples if not s.name.endswith("_created")]
            if measure.label is None:
                out[measure.name] = samples[0].value
            else:
                out[measure.name] = {s.labels[measure.label]: s.value for s in samples}
        return out

    def exposition(self) -> bytes:
        """The same in Prometheus' text format."""
        return generate_latest(self.registry)


def _counter(measure: Measure, registry: CollectorRegistry) -> Counter:
    labels = [measure.label] if measure.label else []
    return Counter(measure.exported, measure.help, labels, registry=registry)
