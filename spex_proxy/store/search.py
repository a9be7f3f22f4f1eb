"""What an exchange is found by: its user and tags (`marks`), the words of prompt and answer (`texts`).

Written with its content, erased with it. On SQLite the words are indexed by FTS5, on PostgreSQL by a GIN
index of a tsvector; both hold the words of wire.terms, so both find the same (but for phrases of three words and more
in long texts: docs/queries.md).
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSQUERY

from spex_proxy.facts.exchange import Exchange
from spex_proxy.store.columns import Id
from spex_proxy.store.rows import insert_all_new, insert_new
from spex_proxy.store.tables_of_search import marks, texts
from spex_proxy.wire.asker import tags_of, user_of
from spex_proxy.wire.terms import MOST_CHARACTERS, phrases, words

MOST_TAGS = 32
LONGEST_MARK = 1024
"""Bytes of UTF-8: an entry of PostgreSQL's index holds 2,704, these and the exchange's id among them."""
_PLACES = 16_383
"""PostgreSQL keeps no place of a word beyond it, ..."""
_TIMES = 255
"""... nor more than 256 of one word. Words that stand there are kept as pairs of neighbours, ..."""
_PAIRS_BYTES = 2**18
"""... as many different ones as have room: PostgreSQL refuses more than 1 MB, and the words themselves may take half
of that. Pairs beyond it (some 37,000 of Chinese characters) are not found as phrases."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIES = 2048
_text_index = sa.table("text_index", sa.column("rowid", sa.BigInteger()), sa.column("text_index", sa.String()))
_SECURE_DELETE = (3, 42)
"""From this SQLite on, FTS5 can overwrite what it deletes at once."""


def index_exchanges(conn: sa.Connection, saved: Sequence[Exchange]) -> None:
    """So that exchanges that were just saved can be found. A few statements for all of them."""
    labels = [
        {"project": one.project, "exchange_id": one.id, "name": name, "value": value, "received_at": one.received_at}
        for one in saved
        for name, value in marks_of(one, conn.dialect)
    ]
    if labels:
        conn.execute(sa.insert(marks), labels)
    is_sqlite = conn.dialect.name == "sqlite"
    rows = [_text_row(one, is_sqlite=is_sqlite) for one in saved]
    new = insert_all_new(conn, texts, rows, "exchange_id")
    there = [row for row in rows if row["exchange_id"] in new or _insert_at_another_number(conn, row)]
    if there and is_sqlite:
        told = sa.text("INSERT INTO text_index(rowid, words) VALUES (:number, :words)")
        conn.execute(told, [{"number": row["number"], "words": row["words"]} for row in there])


def _text_row(exchange: Exchange, *, is_sqlite: bool) -> dict[str, Any]:
    found = _all_words(exchange)
    tie = zlib.crc32(exchange.id.encode("utf-8", "replace")) % _TIES
    return {
        "project": exchange.project,
        "exchange_id": exchange.id,
        "number": number_at(exchange.received_at) + tie,
        "words": " ".join(found) if is_sqlite else _vector(found),
    }


def _insert_at_another_number(conn: sa.Connection, row: dict[str, Any]) -> bool:
    """Another exchange of the same microsecond has its number: the row takes the next free one. False if this
    exchange has words already."""
    wanted = row["number"]
    first = wanted - wanted % _TIES
    for tie in range(_TIES):
        if _number_of(conn, row["project"], row["exchange_id"]) is not None:
            return False
        row["number"] = first + (wanted + tie) % _TIES
        if insert_new(conn, texts, row):
            return True
    return False


def forget(conn: sa.Connection, project: str, exchange_id: str) -> None:
    """Erase what it was found by. With SQLite before 3.42 the index is written anew, which takes time that grows
    with it; otherwise erased words would stay in the file until it is merged with newer ones."""
    is_able = sqlite3.sqlite_version_info >= _SECURE_DELETE
    if conn.dialect.name == "sqlite" and is_able:
        conn.exec_driver_sql("INSERT INTO text_index(text_index, rank) VALUES ('secure-delete', 1)")
    if remove(conn, project, exchange_id) and conn.dialect.name == "sqlite" and not is_able:
        conn.exec_driver_sql("INSERT INTO text_index(text_index) VALUES ('optimize')")


def remove(conn: sa.Connection, project: str, exchange_id: str) -> bool:
    """Take it out of the index, whether it had words there. Some of them may stay in SQLite's file for a while."""
    ours = (texts.c.project == project, texts.c.exchange_id == exchange_id)
    row = conn.execute(sa.select(texts.c.number, texts.c.words).where(*ours)).first()
    if row is not None and conn.dialect.name == "sqlite":
        gone = sa.text("INSERT INTO text_index(text_index, rowid, words) VALUES ('delete', :number, :words)")
        conn.execute(gone, {"number": row[0], "words": row[1]})
    conn.execute(sa.delete(texts).where(*ours))
    conn.execute(sa.delete(marks).where(marks.c.project == project, marks.c.exchange_id == exchange_id))
    return row is not None


def marks_of(exchange: Exchange, dialect: sa.Dialect) -> list[tuple[str, str]]:
    """(`user`, who) and (`tag`, `key=value`), each once, as they will be stored: two that differ in a code point which
    no database takes become one. What is longer than 1,024 bytes, or no text, can't be found."""
    user = user_of(exchange.request)
    found = [("user", user)] if user else []
    tags = [(str(key), value) for key, value in tags_of(exchange.request).items()]
    found += [("tag", tag(key, value)) for key, value in tags[:MOST_TAGS] if isinstance(value, str)]
    stored = ((name, Id().process_bind_param(value, dialect) or "") for name, value in found)
    return [(name, value) for name, value in dict.fromkeys(stored) if len(value.encode()) <= LONGEST_MARK]


def tag(key: str, value: str) -> str:
    return f"{key}={value}"


def number_at(moment: datetime) -> int:
    """Smallest number of an exchange that was received then. In integers: a float would lose the microseconds."""
    micros = (moment - _EPOCH) // timedelta(microseconds=1)
    return max(-(2**62), min(2**62, micros * _TIES))


def is_marked(exchange_id: sa.ColumnElement[Any], project: str, name: str, value: str) -> sa.ColumnElement[bool]:
    """One look into the primary key."""
    found = sa.select(marks.c.exchange_id).where(
        marks.c.project == project, marks.c.exchange_id == exchange_id, marks.c.name == name, marks.c.value == value
    )
    return found.exists()


def says(conn: sa.Connection, exchange_id: sa.ColumnElement[Any], project: str, query: str) -> sa.ColumnElement[bool]:
    """The exchange has these words. For few exchanges: each is looked up. Raises ValueError."""
    found = sa.select(texts.c.exchange_id).where(texts.c.project == project, texts.c.exchange_id == exchange_id)
    return found.where(_matches(conn, query)).exists()


def number_of(exchange_id: sa.ColumnElement[Any], project: str) -> sa.ScalarSelect[int]:
    """Its place among all, in the order of time."""
    ours = (texts.c.project == project, texts.c.exchange_id == exchange_id)
    return sa.select(texts.c.number).where(*ours).scalar_subquery()


def marked(
    conn: sa.Connection, project: str, name: str, value: str, *, since: datetime | None, until: datetime | None,
    before: tuple[datetime, str] | None, limit: int,
) -> list[tuple[str, datetime]]:  # fmt: skip
    """(Exchange, when received), newest first, from the index alone."""
    at = marks.c.received_at
    query = sa.select(marks.c.exchange_id, at).where(
        marks.c.project == project, marks.c.name == name, marks.c.value == value
    )
    if since is not None:
        query = query.where(at >= since)
    if until is not None:
        query = query.where(at < until)
    if before is not None:
        moment, last = before
        query = query.where(at <= moment, sa.or_(at < moment, marks.c.exchange_id < last))
    query = query.order_by(at.desc(), marks.c.exchange_id.desc()).limit(limit)
    return [(row.exchange_id, row.received_at) for row in conn.execute(query)]


def saying(
    conn: sa.Connection, project: str, query: str, *, since: datetime | None, until: datetime | None,
    before: tuple[datetime, str] | None, limit: int,
) -> list[str]:  # fmt: skip
    """Exchanges that have these words, newest first. Raises ValueError for a query without a word."""
    low = None if since is None else number_at(since)
    high = None if until is None else number_at(until)
    if before is not None:
        last = _number_of(conn, project, before[1])
        high = min(filter(None, (high, number_at(before[0]) if last is None else last)))
    if conn.dialect.name == "sqlite":
        return _saying_sqlite(conn, project, query, low, high, limit)
    found = sa.select(texts.c.exchange_id).where(texts.c.project == project, _matches(conn, query))
    if low is not None:
        found = found.where(texts.c.number >= low)
    if high is not None:
        found = found.where(texts.c.number < high)
    return list(conn.scalars(found.order_by(texts.c.number.desc()).limit(limit)))


def _saying_sqlite(
    conn: sa.Connection, project: str, query: str, low: int | None, high: int | None, limit: int
) -> list[str]:
    """FTS5 walks its matches by number in either direction, so a page costs what it shows."""
    found = sa.text(
        "SELECT t.exchange_id FROM text_index AS i CROSS JOIN texts AS t ON t.number = i.rowid "
        "WHERE i.text_index MATCH :query AND i.rowid >= :low AND i.rowid < :high AND t.project = :project "
        "ORDER BY i.rowid DESC LIMIT :limit"
    )
    most = 2**63 - 1
    bounds = {"low": -most if low is None else low, "high": most if high is None else high}
    return list(conn.scalars(found, {"query": match_of(query), "project": project, "limit": limit, **bounds}))


def match_of(query: str) -> str:
    """For FTS5. Words are letters and digits, so nothing needs escaping."""
    return " AND ".join(f'"{" ".join(phrase)}"' for phrase in _phrases(query))


def tsquery_of(query: str) -> str:
    """For PostgreSQL."""
    return " & ".join(f"({_in_order(phrase)})" for phrase in _phrases(query))


def _in_order(phrase: Sequence[str]) -> str:
    """By their places; or, where one of them has no place, by each pair of neighbours (`_vector`). Two words are found
    exactly; of more, a text with such pairs may have each pair somewhere, and not all in a row."""
    placed = " <-> ".join(f"'{word}'" for word in phrase)
    kept = [f"'{pair}'" for pair in _pairs(phrase)]
    if not kept:
        return placed
    each = " & ".join(f"('{one}' <-> '{two}' | '{one} {two}')" for one, two in pairwise(phrase))
    return f"{placed} | ({' | '.join(kept)}) & {each}"


def _matches(conn: sa.Connection, query: str) -> sa.ColumnElement[bool]:
    if conn.dialect.name == "sqlite":
        index = _text_index.c
        found = sa.select(index.rowid).where(index.text_index.match(match_of(query)), index.rowid == texts.c.number)
        return found.correlate(texts).exists()
    return texts.c.words.op("@@", is_comparison=True)(sa.cast(tsquery_of(query), TSQUERY))


def _phrases(query: str) -> list[list[str]]:
    found = phrases(query)
    if not found:
        raise ValueError("write at least one word to look for; signs alone are not indexed")
    return found


def _all_words(exchange: Exchange) -> list[str]:
    """The answers first: of a long prompt, the end may be left out."""
    answers: Sequence[str] = [choice.text for choice in exchange.choices] or [exchange.output_text]
    calls = [part for choice in exchange.choices for call in choice.tool_calls for part in (call.name, call.arguments)]
    whole = "\n".join([*answers, *calls, *(message.text for message in exchange.messages)])
    return words(whole[:MOST_CHARACTERS])


def _vector(found: Sequence[str]) -> str:
    """`'a':1,3 'b':2`: the tsvector itself, so that no setting of the database decides what a word is. Where a word has
    no place, it stands with its neighbours: `'a b'`."""
    places: dict[str, list[int]] = {}
    lost: list[str] = []
    for place, word in enumerate(found, 1):
        its = places.setdefault(word, [])
        if place <= _PLACES and len(its) < _TIMES:
            its.append(place)
        else:
            lost += _pairs(found[max(0, place - 2) : place + 1])
    kept, room = [], _PAIRS_BYTES
    for pair in dict.fromkeys(lost):
        room -= len(pair.encode())
        if room < 0:
            break
        kept.append(f"'{pair}'")
    return " ".join([*(f"'{word}':{','.join(map(str, its))}".rstrip(":") for word, its in places.items()), *kept])


def _pairs(found: Sequence[str]) -> Iterable[str]:
    return (f"{one} {two}" for one, two in pairwise(found))


def _number_of(conn: sa.Connection, project: str, exchange_id: str) -> int | None:
    ours = (texts.c.project == project, texts.c.exchange_id == exchange_id)
    number: int | None = conn.scalar(sa.select(texts.c.number).where(*ours))
    return number
