"""The law of pages: following the cursor gives every row once, in order, whatever arrives meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spex_proxy.store.listing import encode_cursor
from spex_proxy.web.api import PREFIX
from tests.contract.api.serving import Api, Behind, explain, fault
from tests.contract.store.samples import NOON, Make

moments = st.integers(0, 3).map(lambda s: NOON + timedelta(seconds=s))
"""Few different ones: ties are the hard case."""

Add = Callable[[sa.Connection, Make, datetime, str], str]


def add_exchange(conn: sa.Connection, make: Make, moment: datetime, project: str) -> str:
    return make.saved(conn, received_at=moment, project=project).id


def add_explanation(conn: sa.Connection, make: Make, moment: datetime, project: str) -> str:
    return explain(conn, make, make.saved(conn, project=project).id, project, created_at=moment)


@dataclass
class Shelf:
    """One store for all examples: each has a project of its own, which is cheaper than a store."""

    behind: Behind
    http: TestClient
    numbers: Iterator[int]


@pytest.fixture(scope="module")
def shelf(new_store: Callable[[], sa.Engine]) -> Shelf:
    behind = Behind(new_store())
    return Shelf(behind, TestClient(behind.app(), base_url="http://localhost"), itertools.count())


@pytest.mark.parametrize(("path", "add"), [("/exchanges", add_exchange), ("/explanations", add_explanation)])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=st.lists(moments, max_size=7),
    meanwhile=st.lists(st.lists(moments, max_size=2), max_size=6),
    limit=st.integers(1, 3),
)
def test_walking_gives_every_row_once(
    shelf: Shelf, path: str, add: Add, before: list[datetime], meanwhile: list[list[datetime]], limit: int
) -> None:
    make, project, engine = Make(), f"p{next(shelf.numbers)}", shelf.behind.engine
    with engine.begin() as conn:
        there = [add(conn, make, moment, project) for moment in before]
    seen: list[dict[str, Any]] = []
    arrivals = iter(meanwhile)
    params: dict[str, Any] = {"limit": limit, "project": project}
    while True:
        page = shelf.http.get(PREFIX + path, params=params).json()
        seen += page["items"]
        assert len(page["items"]) <= limit
        if page["next_cursor"] is None:
            break
        assert len(page["items"]) == limit, "only the last page may be short"
        params["cursor"] = page["next_cursor"]
        with engine.begin() as conn:
            for moment in next(arrivals, []):
                add(conn, make, moment, project)
    ids = [row["id"] for row in seen]
    assert len(ids) == len(set(ids)), "no row twice"
    assert set(there) <= set(ids), "what was there at the start, is all seen"
    key = "received_at" if path == "/exchanges" else "created_at"
    order = [(row[key], row["id"]) for row in seen]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "AAAA",
        "é",
        "a" * 400,
        encode_cursor(NOON.replace(tzinfo=None), "a"),
        encode_cursor(NOON, "a")[:-5],
        "MDAwMS0wMS0wMVQwMDowMDowMCsxNDowMCBh",  # year 1, east of Greenwich: before all time in UTC
    ],
)
@pytest.mark.parametrize("path", ["/exchanges", "/explanations"])
def test_a_cursor_that_is_none_is_refused(api: Api, path: str, cursor: Any) -> None:
    error = fault(api.get(path, cursor=cursor), 422)
    assert error["where"] == "query.cursor"


def test_a_forged_cursor_shows_nothing_of_another_project(api: Api) -> None:
    cursor = encode_cursor(NOON + timedelta(days=1), "~")
    assert api.ok("/exchanges", cursor=cursor, project="theirs")["items"] == []
