"""What the relay costs: added latency, throughput per core, streams, memory, aborts; beside peers.

    python -m bench.overhead --json FILE --plot FILE

A scripted upstream, this load and one target at a time: the target alone on one core. Targets: the upstream itself
(direct), our relay with capture off, 1% and 100% (everything stored in SQLite), nginx and haproxy where they are
installed, and any other relay by its command. A difference or ratio is between cells of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from bench.overhead import plot
from bench.overhead.machine import cores
from bench.overhead.measure import ABORTS, SCENARIOS, measure, measure_aborts, progress
from bench.overhead.table import tables
from bench.overhead.targets import RATES, SERVERS, Peer, everybody, peer
from bench.overhead.verdicts import verdicts

KINDS = (*(scenario.name for scenario in SCENARIOS), ABORTS)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for; a wrong word ends with a line that says what is possible."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=_positive, default=5)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="of what is measured")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="of the targets; direct is always one")
    parser.add_argument(
        "--peer", action="append", type=_peer, default=[], metavar="NAME[:MODEL]=COMMAND",
        help="another relay; {upstream} and {port} in COMMAND are the two ports, MODEL the model's name that it wants",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, help="how long a round of requests lasts")
    parser.add_argument("--tries", type=_positive, default=5, help="of each abort")
    parser.add_argument("--noise", type=float, default=0.35, help="cores that others may use in a round that counts")
    parser.add_argument("--json", type=Path, help="write all rounds there; scenarios that it has already stay")
    parser.add_argument("--plot", type=Path, help="draw the record as SVG")
    parser.add_argument("--show", type=Path, metavar="JSON", help="measure nothing, print what this record says")
    options = parser.parse_args(given)
    known = [*RATES, *SERVERS, *(each.name for each in options.peer)]
    options.targets = options.targets or known
    if strangers := [name for name in options.targets if name not in known]:
        parser.error(f"unknown targets {', '.join(strangers)}: choose from {', '.join(known)}, or name a --peer")
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _peer(text: str) -> Peer:
    try:
        return peer(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def about() -> dict[str, Any]:
    """When, on what, with which versions."""
    packages = {name: version(name) for name in ("spex-proxy", "uvloop", "sqlalchemy")}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "command": "python -m bench.overhead " + _said(sys.argv[1:]),
        "python": platform.python_version(), "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(), **packages,
    }  # fmt: skip


def _said(words: Sequence[str]) -> str:
    return " ".join(f"'{word}'" if " " in word else word for word in words)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what was asked for; the record, joined with that of `options.json` if there is one."""
    record: dict[str, Any] = {"scenarios": {}, "aborts": {}, "runs": [], "absent": [], "targets": {}}
    if options.json is not None and options.json.exists():
        record |= json.loads(options.json.read_text())
    asked = [scenario for scenario in SCENARIOS if scenario.name in options.only]
    if options.seconds is not None:
        asked = [replace(scenario, seconds=scenario.seconds and options.seconds) for scenario in asked]
    with tempfile.TemporaryDirectory() as name:
        folder, where = Path(name), cores()
        with everybody(options.targets, options.peer, where, folder) as (upstream, targets, absent):
            os.sched_setaffinity(0, where.rest)
            for line in absent:
                print(line, file=sys.stderr)
            record["targets"] |= {target.name: target.about for target in targets}
            record |= {"absent": absent, "most_noise": options.noise}
            record["runs"].append(about() | {"measured": list(options.only), "rounds": options.rounds})
            if ABORTS in options.only:
                record["aborts"] |= uvloop.run(measure_aborts(targets, upstream, options.tries, progress))
            for scenario in asked:
                found = measure([scenario], targets, upstream, options.rounds, options.noise, progress)
                record["scenarios"] |= uvloop.run(found)
                _write(record, options.json)  # whatever ends the next one
            progress("")
            os.sched_setaffinity(0, where.rest | where.target)
    _write(record, options.json)
    return record


def _write(record: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(record, indent=1) + "\n")


def main(given: Sequence[str] | None = None) -> None:
    options = arguments(given)
    if options.show is not None:
        record = json.loads(options.show.read_text()) | {"most_noise": options.noise}
    else:
        record = run(options)
    if options.plot is not None:
        plot.write(record, options.plot)
    print("\n\n".join(part for part in (tables(record), verdicts(record)) if part))


if __name__ == "__main__":
    main()
