"""What was stored before there was an index is found once it is indexed; stopping and going on loses nothing."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from spex_proxy import cli
from spex_proxy.facts.exchange import Message
from spex_proxy.facts.query import Query
from spex_proxy.store import codec, reindex
from spex_proxy.store.browse_interactions import list_interactions
from spex_proxy.store.connect import reading
from spex_proxy.store.exchanges import erase_content
from spex_proxy.store.listing import list_exchanges
from spex_proxy.store.tables import contents, interactions, marks, texts
from tests.contract.store.samples import NOON, Make
from tests.contract.store.test_queries import explained, saved


@pytest.fixture
def old(engine: sa.Engine, make: Make) -> list[str]:
    """Exchanges as a store from before the index holds them: one without explanation, one of them erased."""
    with engine.begin() as conn:
        request = {"user": "ann", "metadata": {"team": "red"}}
        ids = [saved(conn, make, messages=(Message("user", f"find me {n}"),), request=request) for n in range(5)]
        for one in ids[:4]:
            explained(conn, make, one, "tool")
        erase_content(conn, ids[3], NOON)
        if conn.dialect.name == "sqlite":
            conn.exec_driver_sql("INSERT INTO text_index(text_index) VALUES ('delete-all')")
        conn.execute(sa.delete(texts))
        conn.execute(sa.delete(marks))
        conn.execute(sa.update(interactions).values(origins=0))
    return ids


def found(engine: sa.Engine, **given: str) -> set[str]:
    with reading(engine) as conn:
        return {row.exchange_id for row in list_exchanges(conn, "default", Query(**given)).rows}


def tools(engine: sa.Engine) -> int:
    with reading(engine) as conn:
        return len(list_interactions(conn, "default", Query(since=NOON.replace(year=2000), origin="tool")).lines)


def run(engine: sa.Engine, *words: str) -> str:
    url = engine.url.render_as_string(hide_password=False).replace("+psycopg", "").replace("+pysqlite", "")
    done = CliRunner().invoke(cli.app, ["db", "reindex", *words, "--store", url], env={"COLUMNS": "120"})
    assert done.exit_code == 0, (done.output, done.exception)
    return str(done.output)


def test_what_was_there_before_the_index_is_found(engine: sa.Engine, old: list[str]) -> None:
    assert found(engine, text="find") == found(engine, user="ann") == set()
    assert tools(engine) == 0
    assert "8 of 8 indexed" in run(engine)
    left = {*old} - {old[3]}
    assert found(engine, text='"find me"') == found(engine, user="ann") == found(engine, tag="team=red") == left
    assert found(engine, text="find 2") == {old[2]}
    assert tools(engine) > 0
    assert "0 of 8 indexed" in run(engine), "nothing is missing"
    assert "4 of 8 indexed" in run(engine, "--all"), "the words; the origins are right"
    assert found(engine, text='"find me"') == left


def test_stale_words_go_and_damaged_content_is_counted(engine: sa.Engine, old: list[str]) -> None:
    run(engine)
    with engine.begin() as conn:
        if conn.dialect.name == "sqlite":
            told = "INSERT INTO text_index(text_index, rowid, words) SELECT 'delete', number, words FROM texts"
            conn.exec_driver_sql(told)
            conn.execute(sa.update(texts).values(words="stale"))
            conn.exec_driver_sql("INSERT INTO text_index(rowid, words) SELECT number, words FROM texts")
        else:
            conn.exec_driver_sql("UPDATE texts SET words = array_to_tsvector(ARRAY['stale'])")
        conn.execute(sa.update(contents).where(contents.c.exchange_id == old[0]).values(blob=b"torn"))
    with reading(engine) as conn:
        stale = list_exchanges(conn, "default", Query(text="stale"), with_answers=False).rows
    assert len(stale) == 4
    said = run(engine, "--all")
    assert "3 of 8 indexed" in said
    assert "1 can't be read" in said
    assert found(engine, text="find") == {old[1], old[2], old[4]}
    with reading(engine) as conn:
        stale = list_exchanges(conn, "default", Query(text="stale"), with_answers=False).rows
    assert [row.exchange_id for row in stale] == [old[0]], "what can't be read is left as it is"


@pytest.mark.parametrize("place", ["exchange", "message"])
def test_content_of_a_newer_version_stops_nothing(engine: sa.Engine, old: list[str], place: str) -> None:
    with engine.begin() as conn:
        of_it = (contents.c.exchange_id == old[0], contents.c.part == "exchange")
        content = codec.unpack_json(conn.scalars(sa.select(contents.c.blob).where(*of_it)).one(), "content")
        (content if place == "exchange" else content["messages"][0])["mood"] = "new"
        conn.execute(sa.update(contents).where(*of_it).values(blob=codec.pack_json(content)))
        step = reindex.index_words(conn, None, everything=False)
    assert (step.place, step.looked, step.changed, step.unreadable) == (None, 4, 3, 1)
    with reading(engine) as conn:
        assert len(list_exchanges(conn, "default", Query(text="find"), with_answers=False).rows) == 3


def test_stopping_and_going_on_looks_at_each_once(engine: sa.Engine, old: list[str]) -> None:
    place, looked, steps = None, 0, 0
    while True:
        with engine.begin() as conn:
            step = reindex.index_words(conn, place, everything=False, limit=2)
        looked, steps, place = looked + step.looked, steps + 1, step.place
        assert step.changed == step.looked
        if place is None:
            break
    assert (looked, steps) == (len(old) - 1, 3)
