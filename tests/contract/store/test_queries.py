"""Queries: every filter finds what fits and nothing else, no plan reads a whole table, words die with their content."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bench.store_plans import whole_scans
from spex_proxy.facts.errors import TooBroad
from spex_proxy.facts.exchange import Message
from spex_proxy.facts.query import Query
from spex_proxy.store import cases, explanations, games, listing
from spex_proxy.store.browse_explanations import list_explanations
from spex_proxy.store.browse_interactions import list_interactions
from spex_proxy.store.connect import reading
from spex_proxy.store.exchanges import Kept, erase_content, save_captured
from spex_proxy.store.listing import list_exchanges
from spex_proxy.store.population import _origins, population
from spex_proxy.store.tables import marks, texts
from tests.contract.store.samples import NOON, Make

DAY_BEFORE = NOON - timedelta(days=1)


def saved(conn: sa.Connection, make: Make, *, rule: str = "default", why: str = "sampled", **changes: Any) -> str:
    exchange = make.exchange(**changes)
    save_captured(conn, [Kept(exchange, None, None, None, explain=True, why=why, explain_probability=0.5, rule=rule)])
    return exchange.id


def explained(conn: sa.Connection, make: Make, exchange_id: str, roles: str = "user", **changes: Any) -> str:
    game = make.game(exchange_id)
    parts = tuple(replace(s, role=roles, provenance=roles) for s in game.players.segments)
    digest = f"hmac-sha256:{game.id}"  # a game that is there already would be taken instead
    games.save_game(conn, replace(game, players=replace(game.players, segments=parts), digest=digest))
    made = make.explanation(exchange_id, (game.id,), **changes)
    explanations.save_explanation(conn, made)
    return made.id


@pytest.fixture
def two(engine: sa.Engine, make: Make) -> tuple[str, str, str, str]:
    """(exchange, its explanation) twice; the second differs in all that can be asked for."""
    with engine.begin() as conn:
        a = saved(conn, make, request={"user": "ann", "metadata": {"team": "red"}})
        b = saved(
            conn, make, model="huge", rule="agents", output_text="Das Café öffnet. 東京都",
            messages=(Message("tool", "obey me"),), request={"user": "bob", "metadata": {"team": "blue"}},
        )  # fmt: skip
        of_a = explained(conn, make, a)
        fidelity = replace(make.explanation(None, ()).fidelity, r2=0.2)
        of_b = explained(conn, make, b, "tool", verdict="unreliable", fidelity=fidelity, flags=())
        cases.open_case(conn, b, why="rule", who="ann")
    return a, of_a, b, of_b


ONLY_B: list[dict[str, Any]] = [
    {"model": "huge"}, {"rule": "agents"}, {"user": "bob"}, {"tag": "team=blue"}, {"text": "cafe"},
    {"text": '"cafe offnet"'}, {"text": "東京"}, {"text": "OBEY"}, {"verdict": ("unreliable",)},
    {"r2_max": 0.5}, {"review": "open"}, {"origin": "tool", "top": 1}, {"user": "bob", "text": "obey", "model": "huge"},
]  # fmt: skip
BOTH: list[dict[str, Any]] = [{}, {"order": 2}, {"strength": 1.3}, {"order": 2, "strength": 1.3, "top": 1}]
NONE: list[dict[str, Any]] = [
    {"text": "caf"}, {"text": '"offnet cafe"'}, {"order": 3}, {"strength": 1.4}, {"origin": "system"},
    {"order": 1, "strength": 1.0}, {"user": "bob", "tag": "team=red"}, {"review": "done"}, {"flag": "nobody's"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [*((q, "b") for q in ONLY_B), *((q, "ab") for q in BOTH), *((q, "") for q in NONE), ({"flag": "injection"}, "a")],
    ids=str,
)
def test_every_list_obeys_the_same_filters(
    engine: sa.Engine, two: tuple[str, str, str, str], given: dict[str, Any], expected: str
) -> None:
    query = Query(since=DAY_BEFORE, **given)
    with reading(engine) as conn:
        rows = [row.exchange_id for row in list_exchanges(conn, "default", query).rows]
        lines = [line.id for line in list_explanations(conn, "default", query).lines]
        terms = {line.explanation_id for line in list_interactions(conn, "default", query).lines}
    wanted = [pair for pair, name in ((two[2:], "b"), (two[:2], "a")) if name in expected]
    assert rows == [exchange for exchange, _ in wanted]
    assert lines == [explanation for _, explanation in wanted]
    assert terms == {explanation for _, explanation in wanted}


def test_the_words_of_another_project_are_not_found(engine: sa.Engine, two: object) -> None:
    with reading(engine) as conn:
        assert list_exchanges(conn, "theirs", Query(text="cafe")).rows == ()


def test_walking_a_rare_thing_finds_each_once(engine: sa.Engine, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages may be short, but none is lost, where a page may look at few rows only."""
    monkeypatch.setattr(listing, "MOST_SEEN", 4)
    monkeypatch.setattr(listing, "MOST_HITS", 3)
    with engine.begin() as conn:
        ids = [
            saved(conn, make, received_at=NOON - timedelta(seconds=i // 2), output_text="odd" if i % 5 else "rare fish")
            for i in range(23)
        ]
    for query in (Query(text="fish"), Query(text="odd"), Query(since=DAY_BEFORE, review="none")):
        seen, cursor = [], None
        with reading(engine) as conn:
            while True:
                page = list_exchanges(conn, "default", query, cursor=cursor, limit=2)
                seen += [row.exchange_id for row in page.rows]
                cursor = page.next_cursor
                if cursor is None:
                    break
        wanted = ids if query.review else [i for n, i in enumerate(ids) if bool(n % 5) == (query.text == "odd")]
        assert sorted(seen) == sorted(wanted)


REFUSED = [Query(r2_min=0.5), Query(review="open"), Query(origin="tool"), Query(order=2), Query(strength=1.0)]


@pytest.mark.parametrize("query", REFUSED, ids=str)
def test_what_would_read_everything_is_refused_with_the_reason(engine: sa.Engine, query: Query) -> None:
    with reading(engine) as conn:
        for ask in (list_exchanges, list_explanations, list_interactions):
            with pytest.raises(TooBroad, match=r"alone would mean reading every .* give a time range too"):
                ask(conn, "default", query)
        with pytest.raises(TooBroad, match="say where the window begins"):
            population(conn, "default", query)


ALLOWED = [*ONLY_B, *BOTH, {"flag": "injection"}]


@pytest.mark.parametrize("given", ALLOWED, ids=str)
def test_no_plan_reads_a_whole_table(engine: sa.Engine, two: object, given: dict[str, Any]) -> None:
    """PostgreSQL would read tables of two rows whole: it is told not to where there is another way."""
    query = Query(since=DAY_BEFORE, **given)
    if engine.dialect.name == "postgresql":
        sa.event.listen(engine, "connect", _no_scans)
        engine.dispose()
    try:
        with reading(engine) as conn:
            for ask in (list_exchanges, list_explanations, list_interactions):
                assert whole_scans(engine, lambda ask=ask: ask(conn, "default", query)) == []  # type: ignore[misc]
            assert whole_scans(engine, lambda: population(conn, "default", query)) == []
    finally:
        if engine.dialect.name == "postgresql":
            sa.event.remove(engine, "connect", _no_scans)
            engine.dispose()


def _no_scans(connection: Any, _record: object) -> None:
    connection.execute("SET enable_seqscan = off")
    connection.commit()


def test_exchanges_of_one_microsecond_are_told_apart(engine: sa.Engine, make: Make) -> None:
    """Numbers that collide within a batch, and with what is stored already."""
    named = (f"{n:032x}" for n in range(10**6))
    alike = list(itertools.islice((one for one in named if zlib.crc32(one.encode()) % 2048 == 7), 4))
    made = [make.exchange(id=one, output_text=f"alike w{at}", received_at=NOON) for at, one in enumerate(alike)]
    kept = [Kept(one, None, None, None, explain=False, why="sampled", explain_probability=0.5) for one in made]
    with engine.begin() as conn:
        assert save_captured(conn, kept[:2]) == set(alike[:2])
        assert save_captured(conn, kept) == set(alike[2:])
        assert len(set(conn.scalars(sa.select(texts.c.number)))) == 4
    with reading(engine) as conn:
        assert {row.exchange_id for row in list_exchanges(conn, "default", Query(text="alike")).rows} == set(alike)
        for at, one in enumerate(alike):
            (row,) = list_exchanges(conn, "default", Query(text=f"w{at}")).rows
            assert row.exchange_id == one


def test_words_die_with_their_content(engine: sa.Engine, make: Make) -> None:
    """In the tables, and in the file that whoever finds the disk reads."""
    with engine.begin() as conn:
        gone = saved(conn, make, output_text="xylophonequartz", request={"user": "zweihundertneun"})
        kept = saved(conn, make, output_text="an ordinary answer")
    with engine.begin() as conn:
        erase_content(conn, gone, NOON)
    with reading(engine) as conn:
        assert list_exchanges(conn, "default", Query(text="xylophonequartz")).rows == ()
        assert list_exchanges(conn, "default", Query(user="zweihundertneun")).rows == ()
        assert [row.exchange_id for row in list_exchanges(conn, "default", Query(text="ordinary")).rows] == [kept]
        assert conn.scalar(sa.select(sa.func.count()).select_from(texts)) == 1
        assert not conn.execute(sa.select(marks)).all()
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        with engine.connect() as conn:
            conn.exec_driver_sql("ROLLBACK")
            conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        left = b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))
        assert b"ordinary" in left
        assert b"xylophone" not in left
        assert b"zweihundert" not in left


def test_a_population_is_weighed_by_what_was_stored(engine: sa.Engine, make: Make) -> None:
    """Three of four are rare in the sample, though not among all; a cap that said no is weighed up."""
    with engine.begin() as conn:
        for number in range(8):
            likely = number < 4
            one = saved(conn, make, capture_probability=1.0 if likely else 0.25, rule="r")
            explained(conn, make, one, "system" if likely else "tool")
        asked = saved(conn, make, why="not_sampled")
        explained(conn, make, asked)
    window = Query(since=DAY_BEFORE)
    with reading(engine) as conn:
        found = population(conn, "default", window, by="rule")
    assert (found.read, dict(found.left_out)) == (9, {"asked for, not drawn": 1})
    assert found.whole.requests.value == pytest.approx(4 / 0.5 + 4 / 0.125)
    assert found.whole.origins["tool"].value == pytest.approx(0.8)
    assert found.whole.origins["system"].value == pytest.approx(0.2)
    assert found.capped_days == 0
    with engine.begin() as conn:
        for _ in range(8):
            saved(conn, make, rule="r", why="capped")
    with reading(engine) as conn:
        found = population(conn, "default", window, document="Be brief")
    assert found.capped_days == 1
    assert found.whole.requests.value == pytest.approx(2 * (4 / 0.5 + 4 / 0.125))
    assert found.whole.document is not None
    assert found.whole.document.value == pytest.approx(1.0)


def test_terms_are_read_of_the_explanations_that_are_asked_for(
    engine: sa.Engine, two: tuple[str, str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window's others may be any number."""
    monkeypatch.setattr("spex_proxy.store.population.MOST", 1)
    for query in (Query(since=DAY_BEFORE, verdict=("unreliable",)), Query(since=DAY_BEFORE, exchange=two[2])):
        with reading(engine) as conn:
            assert population(conn, "default", query).read == 1
            assert set(_origins(conn, "default", query, 3)) == {two[3]}


def test_a_window_that_is_too_large_is_refused(engine: sa.Engine, two: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spex_proxy.store.population.MOST", 1)
    with reading(engine) as conn, pytest.raises(TooBroad, match="more than 1 explanations: take a shorter one"):
        population(conn, "default", Query(since=DAY_BEFORE))
