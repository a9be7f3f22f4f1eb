"""A filled store and a running second port for each module; tests that change much take one of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade
from tests.contract.api.serving import Api, Behind, fill, serving
from tests.contract.store.samples import Make


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A migrated, empty store, as bytes."""
    path = tmp_path_factory.mktemp("template") / "spex.db"
    engine = open_store(f"sqlite:///{path}")
    upgrade(engine)
    with engine.connect() as conn:
        conn.exec_driver_sql("ROLLBACK")
        conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return path.read_bytes()


@pytest.fixture(scope="session")
def new_store(template: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], sa.Engine]]:
    """Makes migrated, empty stores."""
    made: list[sa.Engine] = []

    def make() -> sa.Engine:
        path: Path = tmp_path_factory.mktemp("store") / "spex.db"
        path.write_bytes(template)
        made.append(open_store(f"sqlite:///{path}"))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture(scope="module")
def api(new_store: Callable[[], sa.Engine]) -> Iterator[Api]:
    behind, make = Behind(new_store()), Make()
    filled = fill(behind.engine, make)
    with serving(behind.app()) as url, httpx.Client(trust_env=False, timeout=20) as http:
        yield Api(url, behind, filled, make, http)
        behind.is_stopping = True
