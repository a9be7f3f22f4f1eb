"""Stores for tests of several folders, on both databases. Import the fixtures into a conftest.

Where PostgreSQL can't be had, its tests are skipped and say why.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade
from tests.contract.store.postgres import Unavailable, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[bool], str]]:
    """Makes databases: `postgres(migrated) -> url`."""
    try:
        with running() as server:
            template = server.make_database()
            _migrate(server.url(template))
            yield lambda migrated: server.url(server.make_database(template if migrated else "template0"))
    except Unavailable as reason:
        pytest.skip(f"no PostgreSQL: {reason}")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty file: copying it is cheaper than migrating once more."""
    path = tmp_path_factory.mktemp("template") / "spex.db"
    _migrate(f"sqlite:///{path}")
    return path


def _migrate(url: str) -> None:
    engine = open_store(url)
    upgrade(engine)
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bool], str]:
    """Makes fresh stores: `database(migrated) -> url`."""
    if request.param == "postgresql":
        maker: Callable[[bool], str] = request.getfixturevalue("postgres")
        return maker
    template: Path = request.getfixturevalue("sqlite_template")
    numbers = itertools.count()

    def make(migrated: bool) -> str:
        path = tmp_path / f"store_{next(numbers)}" / "spex.db"
        if migrated:
            path.parent.mkdir()
            shutil.copy(template, path)
        return f"sqlite:///{path}"

    return make
