"""Every test of the store runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from spex_proxy.store.connect import open_store
from spex_proxy.store.tables import metadata
from tests.contract.store.samples import Make
from tests.databases import database, postgres, sqlite_template

__all__ = ["database", "postgres", "sqlite_template"]


@pytest.fixture
def empty_url(database: Callable[[bool], str]) -> str:
    return database(False)


@pytest.fixture(scope="session")
def postgres_shared(postgres: Callable[[bool], str]) -> str:
    return postgres(True)


@pytest.fixture
def engine(request: pytest.FixtureRequest, database: Callable[[bool], str]) -> Iterator[sa.Engine]:
    """A migrated store without rows. PostgreSQL's is emptied, since making a database costs 100 ms."""
    is_shared = request.node.callspec.params["database"] == "postgresql"
    opened = open_store(request.getfixturevalue("postgres_shared") if is_shared else database(True))
    yield opened
    if is_shared:
        with opened.begin() as conn:
            for table in reversed(metadata.sorted_tables):
                conn.execute(sa.delete(table))
    opened.dispose()


@pytest.fixture
def make() -> Make:
    return Make()
