"""A large store, made fast: a few exchanges saved as the worker saves them, then copied row by row in bulk."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import sqlalchemy as sa

from spex_proxy.facts.evidence import Block
from spex_proxy.facts.exchange import Exchange, Message, Segment, Segmentation, Target
from spex_proxy.facts.explanation import Cost, Explanation, Fidelity, Flag, Interaction
from spex_proxy.facts.game import Game, Scorer
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.store import explanations, games, outbox
from spex_proxy.store.exchanges import Kept, save_captured
from spex_proxy.store.tables import metadata

START = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 30
TEMPLATES = 200
USERS = 20_000
MODELS = ("large", "large", "large", "small", "small", "tiny")
RULES = ("support", "support", "agents", "default")
ROLES = ("system", "user", "tool", "assistant")
VOCABULARY = [f"{a}{b}{c}" for a in ("ba", "de", "fi", "go", "lu", "ma", "ne", "po", "ra", "si") for b in
              ("bor", "den", "fim", "gol", "lun", "mar", "nes", "pol", "rat", "sin") for c in
              ("", "a", "e", "i", "o", "u", "an", "en", "in", "on")]  # fmt: skip


def exchange_of(rng: random.Random, number: int, at: datetime) -> Exchange:
    """Plausible: about 60 words, of which some are frequent and most are not."""
    pick = [VOCABULARY[min(len(VOCABULARY) - 1, int(rng.paretovariate(0.7)))] for _ in range(60)]
    messages = tuple(Message(role, " ".join(pick[12 * i : 12 * i + 12])) for i, role in enumerate(ROLES))
    return Exchange(
        id=f"01a0{number:028x}", project="default", kind="chat", model=rng.choice(MODELS), messages=messages,
        output_text=" ".join(pick[48:]), finish_reason="stop", upstream_id=f"chatcmpl-{number:016x}", streamed=True,
        received_at=at, first_byte_s=0.1, duration_s=1.2, prompt_tokens=90, output_tokens=20,
        capture_probability=0.5, request={"user": f"user-{number % USERS}", "metadata": {"team": f"t{number % 50}"}},
    )  # fmt: skip


def explanation_of(rng: random.Random, exchange: Exchange, game_id: str, number: int) -> Explanation:
    r2 = rng.uniform(0.3, 0.99)
    terms = [(i,) for i in range(6)] + [(0, 1), (2, 3, 4)]
    values = [rng.gauss(0, 1) for _ in terms]
    return Explanation(
        id=f"{number:032x}", project="default", exchange_id=exchange.id, game_ids=(game_id,),
        target=Target(0, 20), recipe=Recipe(), spectrum=Spectrum.from_terms(8, terms, values),
        fidelity=Fidelity(r2, r2 - 0.1, min(1.0, r2 + 0.1), 0.01, 0.99, -3.0, -30.0, 99),
        interactions=tuple(Interaction(t, v, v, v, 0.1) for t, v in zip(terms, values, strict=True)),
        how={"penalty": 0.1}, verdict="reliable" if r2 > 0.5 else "unreliable", verdict_reason="R2",
        cost=Cost(99, 4000, 1000, 7.5), flags=(Flag("untrusted", "x"),) if rng.random() < 0.1 else (),
        trace_id=f"{number:032x}", span_id="b7ad6b7169203331", created_at=exchange.received_at + timedelta(minutes=1),
    )  # fmt: skip


def _game(exchange_id: str, number: int) -> Game:
    parts = (Segment(i // 2, 5 * i, 5 * i + 5, 2 * i, 2 * i + 2, ROLES[i // 2], ROLES[i // 2]) for i in range(8))
    return Game(
        f"9{number:031x}", "default", "features", exchange_id, None, Segmentation("sentence", tuple(parts)), "delete",
        "sum_logprob", Scorer("completions", "large", "vllm 0.32.0"), Target(0, 20), f"hmac-sha256:{number:064x}",
    )  # fmt: skip


def _block() -> Block:
    rng = np.random.default_rng(0)
    return Block(
        0, rng.random((64, 8)) < 0.5, np.zeros(64, dtype=np.int64), rng.normal(size=64),
        rng.normal(size=(64, 20)).astype(np.float32), 400, 100, 0.7, "hmac-sha256:00",
    )  # fmt: skip


def plant(conn: sa.Connection) -> None:
    """The templates, through the store's own functions: each is explained."""
    rng = random.Random(1)
    for number in range(TEMPLATES):
        exchange = exchange_of(rng, number, START - timedelta(days=400, seconds=number))
        kept = Kept(exchange, None, None, None, True, "sampled", 0.1, RULES[number % 4])
        save_captured(conn, [kept])
        outbox.enqueue(conn, exchange_id=exchange.id, recipe=Recipe(), why="sampled")
        game = games.save_game(conn, _game(exchange.id, number))
        games.append_block(conn, game.id, _block())
        explanations.save_explanation(conn, explanation_of(rng, exchange, game.id, number))


def multiply(engine: sa.Engine, total: int, explained: int) -> None:
    """Copies of the templates: `total` exchanges over 30 days, every (total / explained)-th of them explained.

    By the database itself, one INSERT ... SELECT a table: row by row from here, a million take half an hour. Foreign
    keys are not looked at meanwhile (PostgreSQL would look through the whole parent for each row, planned while that
    was empty), and indexes are made at the end.
    """
    step = max(1, total // explained)
    with engine.connect() as conn:
        is_sqlite = conn.dialect.name == "sqlite"
        for setting in _FAST[conn.dialect.name]:
            if is_sqlite:  # not within the transaction that has begun
                conn.connection.driver_connection.execute(setting)  # type: ignore[union-attr]
            else:
                conn.exec_driver_sql(setting)
        indexes = [(str(name), str(made)) for name, made in conn.exec_driver_sql(_INDEXES[conn.dialect.name])]
        copies = (*(_copy(name, total, step, is_sqlite) for name in _TABLES), _cases(total, step, is_sqlite))
        for statement in (
            *(f"DROP INDEX {name}" for name, _ in indexes),
            *(copy if is_sqlite else copy.replace("%", "%%") for copy in copies),  # else a parameter's sign
            *(made for _, made in indexes),
            *(["INSERT INTO text_index(text_index) VALUES ('rebuild')"] if is_sqlite else []),
        ):
            conn.exec_driver_sql(statement)
        conn.commit()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("ANALYZE" if is_sqlite else "VACUUM ANALYZE")


_FAST = {
    "sqlite": ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "PRAGMA foreign_keys=OFF",
               "PRAGMA cache_size=-400000", "PRAGMA temp_store=MEMORY"),
    "postgresql": ("SET session_replication_role = replica", "SET maintenance_work_mem = '512MB'", "SET jit = off"),
}  # fmt: skip
_INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    "postgresql": "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index AS i "
    "JOIN pg_class AS c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace "
    "AND NOT EXISTS (SELECT 1 FROM pg_constraint AS k WHERE k.conindid = i.indexrelid)",
}
"""Indexes that belong to no constraint: name, and the statement that makes it."""

_TABLES = ("exchanges", "contents", "marks", "texts", "games", "evidence_blocks", "explanations", "explanation_games",
           "interactions", "flags", "outbox")  # fmt: skip
_OF_EVERY = ("exchanges", "contents", "marks", "texts")
_OWNER = {
    "exchanges": "id", "evidence_blocks": "game_id", "explanation_games": "explanation_id",
    "interactions": "explanation_id",
}  # fmt: skip


class _Spelling:
    """What the two databases say differently. `n` is the number of a copy."""

    def __init__(self, total: int, is_sqlite: bool) -> None:
        self.is_sqlite, self.apart = is_sqlite, DAYS * 86_400 / total

    def hex(self, head: str, width: int) -> str:
        if self.is_sqlite:
            return f"printf('{head}%0{width}x', n)"
        return f"'{head}' || lpad(to_hex(n), {width}, '0')"

    def moment(self, later: int = 0) -> str:
        seconds = f"{int(START.timestamp()) + later} + n * {self.apart:.6f}"
        if self.is_sqlite:
            return f"strftime('%Y-%m-%d %H:%M:%S.000000', CAST({seconds} AS INTEGER), 'unixepoch')"
        return f"to_timestamp(floor({seconds}))"

    def one_of(self, names: tuple[str, ...], factor: int) -> str:
        cases = " ".join(f"WHEN {i} THEN '{name}'" for i, name in enumerate(names))
        return f"CASE (n * {factor} / 64) % {len(names)} {cases} END"

    def numbers(self, total: int, step: int) -> str:
        if self.is_sqlite:
            counted = f"WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + {step} FROM c WHERE n + {step} < {total})"
            return f"({counted} SELECT n FROM c)"
        return f"generate_series(0::bigint, {total - 1}::bigint, {step}) AS g(n)"

    def number(self) -> str:
        micros = f"CAST({int(START.timestamp())} + n * {self.apart:.6f} AS BIGINT)"
        if not self.is_sqlite:
            micros = f"floor({int(START.timestamp())} + n * {self.apart:.6f})::bigint"
        return f"{micros} * 1000000 * 2048 + n % 2048"

    def words(self) -> str:
        """The template's, one word of its own, and a rare one for every thousandth."""
        if self.is_sqlite:
            rare = "CASE WHEN n % 1000 = 7 THEN ' rare' || (n / 1000 % 7) ELSE '' END"
            return f"t.words || ' only' || n || {rare}"
        own = "array_to_tsvector(ARRAY['only' || n])"
        rare = "CASE WHEN n % 1000 = 7 THEN array_to_tsvector(ARRAY['rare' || (n / 1000 % 7)]) ELSE ''::tsvector END"
        return f"t.words || {own} || {rare}"


def _changes(name: str, say: _Spelling) -> dict[str, str]:
    exchange, explanation, game = say.hex("01b0", 28), say.hex("a", 31), say.hex("b", 31)
    user = f"'user-' || (n * 7919 % {USERS})"
    return {
        "exchanges": {
            "id": exchange, "received_at": say.moment(), "upstream_id": say.hex("chatcmpl-b", 15),
            "trace_id": say.hex("c", 31), "model": say.one_of(MODELS, 97), "rule": say.one_of(RULES, 131),
        },
        "contents": {"exchange_id": exchange},
        "marks": {
            "exchange_id": exchange, "received_at": say.moment(),
            "value": f"CASE t.name WHEN 'user' THEN {user} ELSE 'team=t' || (n * 31 % 50) END",
        },
        "texts": {"exchange_id": exchange, "number": say.number(), "words": say.words()},
        "games": {"id": game, "exchange_id": exchange, "digest": say.hex("hmac-sha256:", 64)},
        "evidence_blocks": {"game_id": game},
        "explanations": {
            "id": explanation, "exchange_id": exchange, "created_at": say.moment(60), "trace_id": say.hex("d", 31)
        },
        "explanation_games": {"explanation_id": explanation, "game_id": game},
        "interactions": {"explanation_id": explanation},
        "flags": {
            "id": say.hex("e", 31), "exchange_id": exchange, "explanation_id": explanation,
            "raised_at": say.moment(60),
        },
        "outbox": {
            "id": say.hex("f", 31), "exchange_id": exchange, "explanation_id": explanation,
            "created_at": say.moment(), "state": "CASE WHEN n % 700 = 0 THEN 'failed' ELSE 'done' END",
        },
    }[name]  # fmt: skip


def _copy(name: str, total: int, step: int, is_sqlite: bool) -> str:
    """Copy n is of template n (every n) or n / step (explained ones), counted round and round."""
    say, every = _Spelling(total, is_sqlite), name in _OF_EVERY
    changes, columns = _changes(name, say), [column.name for column in metadata.tables[name].columns]
    chosen = ", ".join(changes.get(column, f"t.{column}") for column in columns)
    owner = _OWNER.get(name, "exchange_id")
    which = "n" if every else f"n / {step}"
    numbered = f"SELECT r.*, DENSE_RANK() OVER (ORDER BY r.{owner}) - 1 AS k FROM {name} AS r"
    return (
        f"WITH t AS MATERIALIZED ({numbered}) "  # else PostgreSQL ranks the templates anew for every copy
        f"INSERT INTO {name} ({', '.join(columns)}) SELECT {chosen} "
        f"FROM {say.numbers(total, 1 if every else step)} JOIN t ON t.k = {which} % "
        f"(SELECT COUNT(DISTINCT {owner}) FROM {name})"
    )


def _cases(total: int, step: int, is_sqlite: bool) -> str:
    """A hundredth of the explained ones waits for review."""
    say = _Spelling(total, is_sqlite)
    values = ", ".join((say.hex("7", 31), say.hex("01b0", 28), say.hex("a", 31), say.moment(60)))
    return (
        "INSERT INTO cases (project, queue, why, priority, state, events, id, exchange_id, explanation_id, created_at) "
        f"SELECT 'default', 'review', 'rule', 3, 'open', 1, {values} FROM {say.numbers(total, step * 100)}"
    )
