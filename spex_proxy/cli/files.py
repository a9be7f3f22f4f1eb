"""Rows of records as files."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spex_proxy.cli.shell import fail
from spex_proxy.facts.query import Noun

BATCH = 5_000
"""Rows of one row group."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write: a file beside `path`, which takes its name at the end. What breaks off before is deleted, so
    that a file of this name holds everything or what it held before. A pipe is written to as it is."""
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve()  # a link stays one
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.touch()
        if target.exists():
            shutil.copymode(target, part)  # before anything stands in it
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write_jsonl(path: Path, _noun: Noun, rows: Iterable[dict[str, Any]]) -> int:
    """How many. ASCII, so that no line separator or mark of direction stands in it unescaped."""
    count = 0
    with path.open("w", encoding="ascii") as out:
        for count, row in enumerate(rows, 1):  # noqa: B007 - it is the result
            out.write(json.dumps(row, allow_nan=False) + "\n")
    return count


def write_parquet(path: Path, noun: Noun, rows: Iterable[dict[str, Any]]) -> int:
    """How many. Lists and objects are columns of JSON text, times are timestamps in UTC."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        fail("Parquet needs pyarrow: pip install 'spex-proxy[parquet]'; or write .jsonl, which needs nothing")
    schema = pa.schema([(name, _type(kind, pa)) for name, kind in _columns(noun)])
    count, left = 0, iter(rows)
    with pq.ParquetWriter(path, schema) as out:
        while batch := list(itertools.islice(left, BATCH)):
            out.write_table(pa.Table.from_pylist([_flat(row, noun) for row in batch], schema=schema))
            count += len(batch)
    return count


def _columns(noun: Noun) -> list[tuple[str, str]]:
    """Name and kind of each column, from the record's fields."""
    import dataclasses

    from spex_proxy.facts import records

    kind: Any = {
        "exchanges": records.ExchangeRow, "explanations": records.ExplanationRow, "interactions": records.InteractionRow
    }[noun]  # fmt: skip
    return [(f.name, str(f.type).removesuffix(" | None")) for f in dataclasses.fields(kind)]


def _type(kind: str, pa: Any) -> Any:
    known = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "datetime": pa.timestamp("us", tz="UTC")}
    return known.get(kind, pa.string())


def _flat(row: dict[str, Any], noun: Noun) -> dict[str, Any]:
    from datetime import datetime

    flat: dict[str, Any] = {}
    for name, kind in _columns(noun):
        value = row[name]
        if kind == "datetime" and value is not None:
            value = datetime.fromisoformat(value)
        flat[name] = json.dumps(value) if isinstance(value, list | dict) else value
    return flat
