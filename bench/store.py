"""How long do questions to a large store take?

    python -m bench.store                                  # a million exchanges, 100,000 explanations, both databases
    python -m bench.store --exchanges 20000 --explanations 2000 --database sqlite --json
    python -m bench.store --folder /var/tmp/stores --fill  # in two parts: fill once, ...
    python -m bench.store --folder /var/tmp/stores         # ... and measure, as often as one likes

Prints the 95th percentile of each query, whether its plan reads a whole table, and how many exchanges a second
are taken in while queries run. PostgreSQL is started for it, in a folder of its own, as it is installed.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.store_plans import whole_scans
from bench.store_rows import DAYS, START, USERS, exchange_of, multiply, plant
from spex_proxy.facts.query import Query
from spex_proxy.store import browse, cases, flags
from spex_proxy.store.browse_explanations import list_explanations, measured
from spex_proxy.store.browse_interactions import list_interactions
from spex_proxy.store.connect import open_store, reading
from spex_proxy.store.exchanges import Kept, save_captured
from spex_proxy.store.listing import list_exchanges, models
from spex_proxy.store.migrate import upgrade
from spex_proxy.store.population import MOST, population
from tests.contract.store.postgres import running

ASKED_MS = {"sqlite": 200.0, "postgresql": 100.0}
AGGREGATE_MS = 1000.0
ASKED_INGEST = {"sqlite": 200.0, "postgresql": 500.0}
BATCH = 50
"""Exchanges of one transaction, as the intake saves them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One query on one database."""

    database: str
    query: str
    p50_ms: float
    p95_ms: float
    asked_ms: float
    whole_scans: list[str]


@dataclass(frozen=True, slots=True)
class Ingest:
    database: str
    per_second: float
    asked: float
    queries_meanwhile: int


Ask = Callable[[sa.Connection, random.Random], Any]


def questions(total: int, step: int) -> dict[str, Ask]:
    """Name -> the question, with parameters of its own each time."""

    def moment(rng: random.Random) -> datetime:
        return START + timedelta(days=rng.uniform(1, DAYS))

    def listed(**fixed: Any) -> Ask:
        def ask(conn: sa.Connection, rng: random.Random) -> Any:
            given = {name: value(rng) if callable(value) else value for name, value in fixed.items()}
            function = {"x": list_exchanges, "e": list_explanations, "i": list_interactions}[given.pop("of")]
            options = {"with_answers": given.pop("preview", False)} if function is list_exchanges else {}
            return function(conn, "default", Query(**given), limit=50, **options)

        return ask

    def some(rng: random.Random) -> int:
        return rng.randrange(0, total, step)

    return {
        "exchanges": listed(of="x"),
        "exchanges, with previews": listed(of="x", preview=True),
        "exchanges by time": listed(of="x", until=moment),
        "exchanges by model, time": listed(of="x", model="tiny", until=moment),
        "exchanges by rule, time": listed(of="x", rule="agents", until=moment),
        "exchanges by user": listed(of="x", user=lambda rng: f"user-{rng.randrange(USERS)}"),
        "exchanges by tag": listed(of="x", tag=lambda rng: f"team=t{rng.randrange(50)}"),
        "exchanges by state (failed)": listed(of="x", state=("failed",), until=moment),
        "exchanges by verdict, R2": listed(of="x", verdict=("unreliable",), r2_max=0.4, until=moment),
        "exchanges by a frequent word": listed(of="x", text="badena"),
        "exchanges by a word, model, time": listed(of="x", text="babore", model="tiny", until=moment),
        "exchanges by a rare word": listed(of="x", text="rare3"),
        "exchanges by one word of one": listed(of="x", text=lambda rng: f"only{rng.randrange(total)}"),
        "exchanges by a phrase": listed(of="x", text='"babor babora"'),
        "exchanges by review state": listed(of="x", review="open", until=moment),
        "exchanges by flag": listed(of="x", flag="untrusted", until=moment),
        "exchanges: tool in the top 3": listed(of="x", origin="tool", top=3, until=moment),
        "explanations": listed(of="e"),
        "explanations by verdict, time": listed(of="e", verdict=("unreliable",), until=moment),
        "explanations by R2": listed(of="e", r2_max=0.31, until=moment),
        "explanations by model": listed(of="e", model="tiny", until=moment),
        "explanations by user": listed(of="e", user=lambda rng: f"user-{rng.randrange(USERS)}"),
        "explanations by a word": listed(of="e", text="badena", until=moment),
        "explanations by a rare word": listed(of="e", text="rare3", until=moment),
        "explanations by flag": listed(of="e", flag="untrusted", until=moment),
        "explanations: tool in the top 3": listed(of="e", origin="tool", top=3, until=moment),
        "explanations: order 3, strong": listed(of="e", order=3, strength=2.0, until=moment),
        "interactions by order, origin": listed(of="i", order=3, origin="tool", until=moment),
        "models to choose from": lambda conn, _: models(conn, "default"),
        "review queue": lambda conn, _: cases.list_cases(conn, "default"),
        "flags of an exchange": lambda conn, rng: flags.of_exchange(conn, f"01b0{some(rng):028x}"),
        "get an exchange by response id": lambda conn, rng: browse.exchange_story(
            conn, f"chatcmpl-b{some(rng):015x}", "default"
        ),
        "get an exchange by its id": lambda conn, rng: browse.exchange_story(conn, f"01b0{some(rng):028x}", "default"),
        "get an explanation": lambda conn, rng: browse.story(conn, f"a{some(rng):031x}", "default"),
        "get its evidence": lambda conn, rng: measured(
            conn, browse.story(conn, f"a{some(rng):031x}", "default").explanation
        ),
    }


def aggregates(total: int, step: int) -> dict[str, Ask]:
    """Windows of nearly as many explanations as may be."""
    span = timedelta(days=DAYS) * min(1.0, 0.98 * MOST * step / total)

    def ask(**options: Any) -> Ask:
        def run(conn: sa.Connection, rng: random.Random) -> Any:
            since = START + (timedelta(days=DAYS) - span) * rng.random()
            return population(conn, "default", Query(since=since, until=since + span), **options)

        return run

    return {
        "aggregate": ask(),
        "aggregate by model": ask(by="model"),
        "aggregate by day": ask(by="day"),
        "aggregate: a document": ask(document="badena babor"),
    }


def measure(engine: sa.Engine, name: str, ask: Ask, asked_ms: float, tries: int) -> Line:
    rng, seconds = random.Random(name), []

    def once() -> None:
        with reading(engine) as conn:
            ask(conn, rng)

    once()
    scans = whole_scans(engine, once)
    for _ in range(tries):
        started = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - started)
    seconds.sort()
    at = [seconds[min(len(seconds) - 1, int(share * len(seconds)))] * 1000 for share in (0.5, 0.95)]
    return Line(engine.dialect.name, name, round(at[0], 2), round(at[1], 2), asked_ms, scans)


def ingest(engine: sa.Engine, asks: list[Ask], seconds: float) -> Ingest:
    """Save new exchanges for a while, in batches, beside one reader that never rests."""
    stop, asked = threading.Event(), [0]

    def read() -> None:
        rng = random.Random(5)
        while not stop.is_set():
            with reading(engine) as conn:
                rng.choice(asks)(conn, rng)
            asked[0] += 1

    reader, rng, saved = threading.Thread(target=read), random.Random(6), 0
    first = time.time_ns() // 1000  # ids of their own in a store that is used again
    ready = [exchange_of(rng, first + n, datetime.now(UTC)) for n in range(int(seconds * 3000))]
    reader.start()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds and saved + BATCH <= len(ready):
        with engine.begin() as conn:
            batch = ready[saved : saved + BATCH]
            save_captured(conn, [Kept(one, None, None, None, False, "not_sampled", 0.1, "default") for one in batch])
        saved += BATCH
    took = time.perf_counter() - started
    stop.set()
    reader.join()
    return Ingest(engine.dialect.name, round(saved / took, 1), ASKED_INGEST[engine.dialect.name], asked[0])


@contextmanager
def filled(database: str, total: int, explained: int, folder: Path | None) -> Iterator[sa.Engine]:
    """A store with that many rows; with `folder`, it stays there and is used again."""
    name = f"spex_{total}_{explained}"
    with tempfile.TemporaryDirectory(prefix="spex-bench-") as made:
        place = (folder or Path(made)).resolve()
        if database == "sqlite":
            path, part = place / f"{name}.db", place / f"{name}.part"
            if not path.exists():
                part.unlink(missing_ok=True)
                fill(f"sqlite:///{part}", total, explained)
                part.rename(path)
            yield from _opened(f"sqlite:///{path}")
            return
        with running(place / "postgresql" if folder else None, is_durable=True) as server:
            with server.connect() as connection:
                there = {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}
                connection.execute("DROP DATABASE IF EXISTS filling")
            if name not in there:
                fill(server.url(server.make_database(name="filling")), total, explained)
                with server.connect() as connection:
                    connection.execute(f"ALTER DATABASE filling RENAME TO {name}")
            yield from _opened(server.url(name))


def fill(url: str, total: int, explained: int) -> None:
    engine = open_store(url)
    upgrade(engine)
    with engine.begin() as conn:
        plant(conn)
    started = time.perf_counter()
    multiply(engine, total, explained)
    say(f"{engine.dialect.name}: {total} exchanges in {time.perf_counter() - started:.0f} s")
    engine.dispose()


def _opened(url: str) -> Iterator[sa.Engine]:
    engine = open_store(url)
    upgrade(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exchanges", type=int, default=1_000_000)
    parser.add_argument("--explanations", type=int, default=100_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--ingest-seconds", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, help="keep the stores here, and use them again")
    parser.add_argument("--fill", action="store_true", help="only fill them")
    parser.add_argument("--only", default="", help="queries whose name has this in it, and no others")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    lines: list[Line] = []
    taken: list[Ingest] = []
    for database in ("sqlite", "postgresql") if given.database == "both" else (given.database,):
        with filled(database, given.exchanges, given.explanations, given.folder) as engine:
            if given.fill:
                continue
            step = max(1, given.exchanges // given.explanations)
            asks = questions(given.exchanges, step)
            for name, ask in asks.items():
                if given.only in name:
                    lines.append(measure(engine, name, ask, ASKED_MS[database], given.tries))
                    tell(lines[-1], is_json=given.json)
            for name, ask in aggregates(given.exchanges, step).items():
                if given.only in name:
                    lines.append(measure(engine, name, ask, AGGREGATE_MS, max(5, given.tries // 4)))
                    tell(lines[-1], is_json=given.json)
            if given.only not in "ingest":
                continue
            taken.append(ingest(engine, list(asks.values()), given.ingest_seconds))
            if not given.json:
                say(f"{database}: {taken[-1].per_second} exchanges/s taken in (asked: {taken[-1].asked})")
    if given.json:
        say(json.dumps({"queries": [asdict(one) for one in lines], "ingest": [asdict(one) for one in taken]}, indent=2))


def tell(line: Line, *, is_json: bool) -> None:
    if is_json:
        return
    mark = "" if line.p95_ms <= line.asked_ms else f"  MORE THAN {line.asked_ms:.0f}"
    scans = "".join(f"\n      {scan}" for scan in line.whole_scans)
    say(f"{line.database:11} {line.query:36} {line.p50_ms:9.1f} {line.p95_ms:9.1f} ms{mark}{scans}")


if __name__ == "__main__":
    main()
