"""What was seen of our own parts (relay, store, queue, plugins, telemetry) -> findings. Pure, as `diagnose_server`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from spex_proxy.facts.finding import Finding, Level
from spex_proxy.flows.diagnose_server import clocks
from spex_proxy.ports.look import Answer, Look, Silence
from spex_proxy.store.condition import Condition, Disk, Queue
from spex_proxy.store.connect import RevisionState

SCARCE_BYTES, NO_BYTES = 2 * 1024**3, 200 * 1024**2
"""Free disk under which to warn, and under which SQLite will soon fail to write."""
LONG_WAIT_S = 900.0
"""A job that could be taken and has waited so long says that too few workers run."""


def relay(url: str, direct: Look, relayed: Look, second: Look, version: str) -> Finding:
    """`direct` and `relayed` are the same question to the upstream and through the relay port; `second` is
    the second port's /healthz, which says whose port this is."""
    name = "relay"
    running = _our_version(second)
    if isinstance(relayed, Silence):
        if running is None:
            found = f"nothing listens on {url}"
            return Finding(name, "unknown", found, "If it should run on this machine: spex-proxy serve.")
        found = f"the second port answers, {url} does not: {relayed.reason}"
        return Finding(name, "broken", found, "Read the log of spex-proxy serve, and start it again.")
    if running is None:
        advice = "Give it the same SPEX_HOST, SPEX_PORT, SPEX_ADMIN_HOST and SPEX_ADMIN_PORT as this command."
        return Finding(name, "warning", f"something listens on {url}; whether it is ours can't be known", advice)
    if not isinstance(direct, Answer):
        found = f"ours ({running}), and answers {relayed.status} while the upstream is silent"
        return Finding(name, "ok", found)
    if _said(direct) != _said(relayed):
        found = f"{url}/version answers {relayed.status} where the upstream answers {direct.status}, or other bytes"
        advice = "Does serve run with another SPEX_UPSTREAM, or has another program taken the port?"
        return Finding(name, "broken", found, advice)
    found = f"ours ({running}), relays /version byte for byte"
    if running != version:
        return Finding(name, "warning", f"{found}; this is {version}", "Start spex-proxy serve again.")
    return Finding(name, "ok", found)


def store(url: str, seen: Condition | str) -> Finding:
    """`seen` is text where the store can't be opened or read."""
    name = "store"
    if isinstance(seen, str):
        advice = "Name the right one (--store or SPEX_STORE), or make it: spex-proxy db upgrade."
        return Finding(name, "broken", seen, advice)
    found = f"{url}: {seen.version}, {_bytes(seen.size)}"
    if seen.write_trouble is not None:
        advice = "Captures are lost and nothing is explained until it can be written: mend rights, disk or lock."
        return Finding(name, "broken", f"{found}; can't be written: {seen.write_trouble}", advice)
    if seen.journal not in (None, "WAL"):
        advice = "Keep it on a local disk: SQLite's WAL does not work over network file systems."
        return Finding(name, "warning", f"{found}; journal {seen.journal}, not WAL", advice)
    return Finding(name, "ok", f"{found}{', WAL' if seen.journal else ''}, can be written")


def migrations(state: RevisionState | str) -> Finding:
    name = "migrations"
    if isinstance(state, str):
        return Finding(name, "broken", state, "Run the version that made the store, or name another store.")
    if state.is_current:
        return Finding(name, "ok", f"at {state.head}, the newest")
    found = f"at {state.current or 'none'}, this version needs {state.head}"
    return Finding(name, "broken", found, "Run: spex-proxy db upgrade")


def queue(seen: Queue) -> Finding:
    name = "queue"
    counted = ", ".join(f"{number:,} {state}" for state, number in seen.counts.items() if number) or "empty"
    found = f"{counted}; {seen.workers} worker{'' if seen.workers == 1 else 's'} alive"
    if seen.paused:
        found += f"; paused: {', '.join(seen.paused)}"
    start = "Start a worker: spex-proxy work. If one should be running, its log says why it is not."
    if seen.orphans:
        return Finding(
            name, "warning", f"{found}; {seen.orphans} running in the name of a worker that is gone",
            "A live worker takes them over within a minute." if seen.workers else start,
        )  # fmt: skip
    waited = seen.oldest_waiting_s
    if waited is None:
        return Finding(name, "ok", found)
    found = f"{found}; the oldest waits {_duration(waited)}"
    if not seen.workers:
        return Finding(name, "warning", found, start)
    if waited >= LONG_WAIT_S:
        return Finding(name, "warning", found, "Run more workers, or explain less: SPEX_EXPLAIN_RATE, SPEX_BUDGET.")
    return Finding(name, "ok", found)


def disk(seen: Disk | None) -> Finding:
    name = "disk"
    if seen is None:
        found = "the database's disk can't be seen from here"
        return Finding(name, "unknown", found, "Watch it where the database runs.")
    found = f"{_bytes(seen.free)} free of {_bytes(seen.total)} under {seen.folder}"
    if seen.free >= SCARCE_BYTES:
        return Finding(name, "ok", found)
    level: Level = "broken" if seen.free < NO_BYTES else "warning"
    return Finding(name, level, found, "Make room, or move the store: when it is full, captures are lost.")


def database_clock(seen: Condition) -> Finding:
    name = "clock (database)"
    if seen.clock_ahead_s is None:
        return Finding(name, "ok", "SQLite uses this machine's")
    return clocks(name, -seen.clock_ahead_s)


def plugins(loaded: int, refused: Mapping[tuple[str, str], str], chosen: Mapping[str, str]) -> Finding:
    """`refused` and `chosen` are by kind (and name). What new explanations are set to use must load."""
    name = "plugins"
    if not refused:
        return Finding(name, "ok", f"all {loaded} load; set: {', '.join(chosen.values())}")
    needed = [why for (kind, plugin), why in refused.items() if chosen.get(kind) == plugin]
    if needed:
        advice = "Mend or reinstall it, or set another one (SPEX_SEGMENTER, SPEX_MASKER, SPEX_VALUE)."
        return Finding(name, "broken", "; ".join(needed), advice)
    advice = "Mend or uninstall what is refused; new explanations do not need it, older ones may, to be verified."
    return Finding(name, "warning", "; ".join(refused.values()), advice)


def telemetry(endpoint: str | None, look: Look | None) -> Finding:
    """`look` is what an empty batch of spans was answered with."""
    name = "telemetry"
    if endpoint is None or look is None:
        return Finding(name, "ok", "not set up: spans have ids in the store and are sent nowhere")
    if isinstance(look, Answer) and look.status == 200:
        return Finding(name, "ok", f"{endpoint} takes spans")
    got = f"answers {look.status}" if isinstance(look, Answer) else f"does not answer: {look.reason}"
    advice = "Spans are lost, nothing else. SPEX_OTLP_ENDPOINT is a collector's OTLP over HTTP, http://host:4318."
    return Finding(name, "warning", f"{endpoint} {got}", advice)


def _our_version(second: Look) -> str | None:
    if not isinstance(second, Answer) or second.status != 200:
        return None
    try:
        said = json.loads(second.body)
    except ValueError:
        return None
    is_ours = isinstance(said, dict) and said.get("status") == "ok" and isinstance(said.get("version"), str)
    return said["version"] if is_ours else None


def _said(answer: Answer) -> tuple[int, bytes, str | None]:
    return answer.status, answer.body, answer.headers.get("content-type")


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
