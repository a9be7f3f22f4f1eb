"""The runner inside the test's own process, on SQLite and on PostgreSQL."""

from __future__ import annotations

from tests.databases import database, postgres, sqlite_template
from tests.story.jobs.conftest import factory, model

__all__ = ["database", "factory", "model", "postgres", "sqlite_template"]
