"""Which statements read a whole table: the database's own plans of all that a function asks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from spex_proxy.store.connect import reading


@contextmanager
def statements(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    """What is asked meanwhile, with its parameters."""
    heard: list[tuple[str, Any]] = []

    def listen(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            heard.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", listen)
    try:
        yield heard
    finally:
        sa.event.remove(engine, "before_cursor_execute", listen)


def whole_scans(engine: sa.Engine, ask: Callable[[], Any]) -> list[str]:
    """One line for each table, or index, that `ask` reads from end to end."""
    with statements(engine) as heard:
        ask()
    found = []
    with reading(engine) as conn:  # planned as it is when it is asked
        for statement, parameters in heard:
            found += [f"{what} in: {' '.join(statement.split())[:400]}" for what in _scans(conn, statement, parameters)]
    return found


def _scans(conn: sa.Connection, statement: str, parameters: Any) -> list[str]:
    if conn.dialect.name == "sqlite":
        rows = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        return [row[3] for row in rows if _is_whole(str(row[3]))]
    (plan,) = conn.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).one()
    tree = plan if isinstance(plan, list) else json.loads(plan)
    return [
        f"Seq Scan on {node['Relation Name']}" for node in _nodes(tree[0]["Plan"]) if node["Node Type"] == "Seq Scan"
    ]


def _is_whole(detail: str) -> bool:
    """`SCAN t`, but not of a subquery, an index of words, or constant rows."""
    return bool(re.match(r"^SCAN ", detail)) and not re.search(
        r"VIRTUAL TABLE INDEX|CONSTANT ROW|SUBQUERY|CO-ROUTINE|^SCAN \(|anon_", detail
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
