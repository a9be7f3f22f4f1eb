"""Rows of a person's CSV or JSON-lines file. Errors name the file's place, never what stands there."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

MOST_BYTES = 256 * 1024 * 1024
"""A file is read whole."""


def title(source: str) -> str:
    """What a file's data set is called: the file's own name."""
    return Path(source).name[:60]


def read(source: str, where: str) -> list[dict[str, Any]]:
    """One mapping a line. Raises ValueError for a file that is not there, is none of the two, or holds nothing."""
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{where}: there is no file {source!r} (paths are relative to where spex-proxy runs)")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{where}: {source!r} has more than {MOST_BYTES // 2**20} MiB; take a part of it")
    ending = path.suffix.lower()
    if ending not in (".csv", ".jsonl"):
        raise ValueError(f"{where}: {source!r} must end in .csv or .jsonl")
    try:
        found = read_csv(path) if ending == ".csv" else read_lines(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: {source!r} is not UTF-8 text (byte {error.start})") from None
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{where}: {source!r}: {error}") from None
    if not found:
        raise ValueError(f"{where}: {source!r} holds no rows")
    return found


def read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        found = []
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num} has more or fewer columns than the first line")
            found.append(dict(row))
        return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            raise ValueError(f"line {number} is no JSON") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")
        found.append(row)
    return found


def text(row: dict[str, Any], column: str, at: int) -> str:
    """Raises ValueError for a column that is not there or holds no text; numbers count as their digits."""
    if column not in row:
        raise ValueError(f"row {at + 1} has no column {column!r}; there is {', '.join(map(str, row))}")
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise ValueError(f"row {at + 1} has no text in column {column!r}")
    return str(value)


def number(row: dict[str, Any], column: str, at: int) -> float:
    """Raises ValueError for what is no finite number."""
    written = text(row, column, at)
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"row {at + 1} has no finite number in column {column!r}; there may be a text column to name")
    return value
