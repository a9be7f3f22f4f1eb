"""Tables of coalitions and their values, as files.

    npz       `masks` (m, n) of True/False or 0/1, or packed bits (m, ceil(n/8)) uint8 with `n`; `values` (m,) or
              (m, k); optional `players` and `items`, names. Other arrays are not looked at.
    parquet   a column of lists (m lists of n truth values or 0/1) named `masks`, or one column for each player;
              columns of numbers as values. Needs pyarrow.

Names of arrays and columns are the person's to choose: published runs call them what they like.
"""

from __future__ import annotations

import importlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Masks
from spex_proxy_training.section import Section


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """m measurements of n players and k items."""

    masks: Masks
    """Shape (m, n)."""
    values: NDArray[np.float64]
    """Shape (m, k), finite."""
    players: tuple[str, ...]
    items: tuple[str, ...]


def read(top: Section) -> Contents:
    """Raises ValueError for a file that is no such table, ModuleNotFoundError for Parquet without pyarrow."""
    file = top.text("file")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"file: there is no {file!r} (paths are relative to where spex-proxy runs)")
    if path.suffix == ".npz":
        return checked(*from_npz(path, top), file)
    if path.suffix == ".parquet":
        return checked(*from_parquet(path, top), file)
    raise ValueError(f"file: {file!r} must end in .npz or .parquet")


Raw = tuple[Any, Any, tuple[str, ...], tuple[str, ...]]
"""Masks, values, names of players and of items (empty where there are none), as they were found."""


def from_npz(path: Path, top: Section) -> Raw:
    """Nothing in the file is run: pickled arrays are refused."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = {"masks": top.text("masks", "masks"), "values": top.text("values", "values")}
            for wanted, name in names.items():
                if name not in stored:
                    raise ValueError(
                        f"there is no array {name!r}; {wanted} names one of {', '.join(stored.files) or 'none'}"
                    )
            masks, values = stored[names["masks"]], stored[names["values"]]
            if "n" in stored and masks.dtype == np.uint8 and masks.ndim == 2:
                masks = unpacked(masks, int(stored["n"]))
            return masks, values, of_file(top, "players", stored), of_file(top, "items", stored)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"file: {str(path)!r} can't be read as npz: {type(error).__name__}") from None
    except ValueError as error:
        raise ValueError(f"file: {str(path)!r}: {error}") from None


def unpacked(masks: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """(m, n) bits of packed rows; what is as wide as there are players is not packed."""
    if masks.shape[1] == n and n != -(-n // 8):
        return masks
    if n < 1 or masks.shape[1] != -(-n // 8):
        raise ValueError(f"masks of shape {masks.shape} do not fit n = {n}, packed or not")
    return np.unpackbits(masks, axis=1)[:, :n]


def of_file(top: Section, name: str, stored: Any) -> tuple[str, ...]:
    """Names from the configuration, else from the file, else none."""
    if top.has(name):
        return top.names(name)
    return tuple(str(one) for one in np.atleast_1d(stored[name])) if name in stored else ()


def from_parquet(path: Path, top: Section) -> Raw:
    """`players` names the players' columns, or, where `masks` is one column of lists, the players."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        failure = importlib.import_module("pyarrow").ArrowException
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Parquet tables need pyarrow: pip install "spex-proxy[parquet]"', name=error.name
        ) from error
    try:
        found = parquet.read_table(path)
    except (failure, OSError) as error:
        raise ValueError(f"file: {str(path)!r} can't be read as Parquet: {type(error).__name__}") from None
    columns, players = list(found.column_names), top.names("players")
    named = top.text("masks", "masks")
    if named in columns:
        masks, taken = lists(found[named].to_pylist(), named), [named]
    elif players and all(name in columns for name in players):
        masks, taken = np.stack([found[name].to_numpy() for name in players], axis=1), list(players)
    else:
        raise ValueError(
            f"file: {str(path)!r} has neither a column {named!r} of lists nor a column for each of players; "
            f"there is {', '.join(columns)}"
        )
    wanted = [top.text("values")] if isinstance(top.entries.get("values"), str) else list(top.names("values"))
    wanted = wanted or [name for name in columns if name not in taken]
    missing = [name for name in wanted if name not in columns]
    if missing or not wanted:
        raise ValueError(f"file: {str(path)!r} has no column {missing or ['of values']}; there is {', '.join(columns)}")
    values = np.stack([np.asarray(found[name].to_numpy(), dtype=np.float64) for name in wanted], axis=1)
    return masks, values, players, top.names("items") or tuple(wanted)


def lists(rows: list[Any], name: str) -> NDArray[Any]:
    """Raises ValueError for rows of different lengths."""
    if not rows or any(not isinstance(row, list) or len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"file: the column {name!r} must hold lists of one length")
    return np.asarray(rows)


def checked(masks: Any, values: Any, players: tuple[str, ...], items: tuple[str, ...], file: str) -> Contents:
    """Shapes, kinds and counts. Raises ValueError that names what does not fit."""
    masks, values = np.asarray(masks), np.asarray(values)
    if masks.ndim != 2 or 0 in masks.shape or (masks.dtype != np.bool_ and not np.isin(masks, (0, 1)).all()):
        raise ValueError(f"file: {file!r}: masks must be (m, n) of True and False or 1 and 0, not {about(masks)}")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] == 0 or values.dtype.kind not in "fiu":
        raise ValueError(f"file: {file!r}: values must be numbers (m,) or (m, k), not {about(values)}")
    if len(values) != len(masks):
        raise ValueError(f"file: {file!r}: {len(masks)} masks come with {len(values)} values")
    wrong = np.flatnonzero(~(np.abs(values) <= np.finfo(np.float32).max).all(axis=1))  # readings are float32
    if len(wrong):
        raise ValueError(f"file: {file!r}: row {wrong[0]} and {len(wrong) - 1} more have a value that is not finite")
    for name, names, count in (("players", players, masks.shape[1]), ("items", items, values.shape[1])):
        if names and (len(names) != count or not all(names)):
            raise ValueError(f"file: {file!r}: {name} gives {len(names)} names for {count}; each needs one, not empty")
    return Contents(
        masks.astype(np.bool_),
        values.astype(np.float64),
        players or tuple(f"player {number + 1}" for number in range(masks.shape[1])),
        items or tuple(f"value {number + 1}" for number in range(values.shape[1])),
    )


def about(found: NDArray[Any]) -> str:
    return f"{found.dtype} of shape {found.shape}"
