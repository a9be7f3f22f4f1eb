"""Each story of the jobs runs on SQLite and on PostgreSQL, unless it says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.databases import database, postgres, sqlite_template
from tests.story.jobs.factory import Factory, PacedModel

__all__ = ["database", "postgres", "sqlite_template"]


@pytest.fixture
def model() -> Iterator[PacedModel]:
    with PacedModel() as server:
        yield server


@pytest.fixture
def factory(database: Callable[[bool], str], model: PacedModel, tmp_path: Path) -> Iterator[Factory]:
    with Factory(database(True), model, tmp_path) as running:
        yield running
