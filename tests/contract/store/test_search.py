"""What an exchange is found by: both databases take it, whatever a client sends, and find the same."""

from __future__ import annotations

import random
from typing import Any

import pytest
import sqlalchemy as sa

from spex_proxy.facts.query import Query
from spex_proxy.store.connect import reading
from spex_proxy.store.listing import list_exchanges
from spex_proxy.store.tables import marks
from spex_proxy.wire.answer import LONGEST_NAME
from spex_proxy.wire.terms import MOST_CHARACTERS
from tests.contract.store.samples import Make
from tests.contract.store.test_queries import saved

CHINESE = [chr(code) for code in range(0x3400, 0xA000)]


def found(engine: sa.Engine, **given: str) -> list[str]:
    with reading(engine) as conn:
        return [row.exchange_id for row in list_exchanges(conn, "default", Query(**given)).rows]


def noise(length: int, letters: list[str] = CHINESE) -> str:
    """What no compression makes shorter: PostgreSQL compresses an index's entries before it measures them."""
    return "".join(random.Random(length).choices(letters, k=length))


def test_marks_that_no_database_tells_apart_are_one(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        one = saved(conn, make, request={"metadata": dict.fromkeys(["k\0", "k\ufffd", f"k{chr(0xD800)}", "k"], "v")})
        assert sorted(conn.scalars(sa.select(marks.c.value))) == ["k=v", "k\ufffd=v"]
    assert found(engine, tag="k\0=v") == found(engine, tag="k\ufffd=v") == [one]


def test_marks_that_an_index_has_no_room_for_are_left_out(engine: sa.Engine, make: Make) -> None:
    fits, long = noise(341), noise(950)
    with engine.begin() as conn:
        kept = saved(conn, make, request={"user": fits})
        saved(conn, make, request={"user": long, "metadata": {"k": long}})
    assert found(engine, user=fits) == [kept]
    assert found(engine, user=long) == found(engine, tag=f"k={long}") == []


def test_the_longest_names_fit_the_indexes(engine: sa.Engine, make: Make) -> None:
    name = noise(LONGEST_NAME, [chr(code) for code in range(0x20000, 0x2A000)])
    with engine.begin() as conn:
        one = saved(conn, make, upstream_id=name, model=name)
    assert found(engine, model=name) == [one]


THE = "the " * 300
FAR = "so " * 17_000
LOST: list[tuple[str, str, bool]] = [
    (THE + "the refund was promised", '"the refund"', True),
    (THE + "the refund was promised", '"the refund was promised"', True),
    (THE + "the refund was promised", '"refund was"', True),
    (THE + "the refund was promised", '"refund the"', False),
    (THE + "refund", '"the refund"', True),
    (THE + "a refund", '"the refund"', False),
    (THE + "the refund was promised", '"the was"', False),
    (FAR + "green apples taste good", '"green apples taste"', True),
    (FAR + "green apples taste good", '"so green"', True),
    (FAR + "green apples taste good", '"apples green"', False),
    (FAR + "green apples taste good", '"green taste"', False),
    (FAR + "green apples taste good", '"taste good" so', True),
    ("的" * 300 + "東京都の的", "東京都", True),
    ("的" * 300 + "東京都の的", "京東", False),
    ("的" * 300 + "東京都の的", "の的", True),
]


@pytest.mark.parametrize(("text", "query", "expected"), LOST, ids=[f"{i}-{case[1]}" for i, case in enumerate(LOST)])
def test_phrases_are_found_however_long_the_text(
    engine: sa.Engine, make: Make, text: str, query: str, expected: bool
) -> None:
    """PostgreSQL keeps no more than 256 places of a word, and none beyond 16,383."""
    with engine.begin() as conn:
        one = saved(conn, make, output_text=text)
    assert found(engine, text=query) == ([one] if expected else [])


def test_of_three_words_without_places_postgresql_looks_at_pairs(engine: sa.Engine, make: Make) -> None:
    """As docs/queries.md says: it finds what is there, and now and then what is there in two parts."""
    with engine.begin() as conn:
        one = saved(conn, make, output_text=f"{THE}. the red car stood. In the red. A red car.")
        two = saved(conn, make, output_text=f"{THE}. Not the red, a red car.")
    both = [two, one] if engine.dialect.name == "postgresql" else [one]
    assert sorted(found(engine, text='"the red car"')) == sorted(both)
    assert found(engine, text='"the red car stood"') == [one]


@pytest.mark.parametrize(
    "text",
    [
        noise(MOST_CHARACTERS),
        noise(MOST_CHARACTERS, [*map(chr, range(0x12000, 0x12399)), " "]),
        " ".join(map("".join, zip(*[iter(noise(87_000, [*map(chr, range(0x12000, 0x12399))]))] * 2, strict=True))),
        " ".join(f"{n:x}" for n in range(30_000)),
        "\N{DESERET SMALL LETTER OI} " * (MOST_CHARACTERS // 2),
    ],
    ids=["Chinese", "cuneiform", "pairs", "numbers", "one"],
)
def test_a_text_of_ever_other_words_is_taken(engine: sa.Engine, make: Make, text: str) -> None:
    """PostgreSQL refuses more than 1 MB of words."""
    with engine.begin() as conn:
        one = saved(conn, make, output_text=text + " end", request={})
    parts: list[Any] = text.split()
    wanted = text[1000:1004] if len(parts) == 1 else f'"{parts[5]} {parts[6]}"'
    assert found(engine, text=wanted) == [one]
