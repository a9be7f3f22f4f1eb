"""The game `table`: coalitions whose values somebody has computed already, such as published datamodel runs.

It answers what the table holds and nothing else. What it holds is `Recorded.recorded`: ask these, and fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Evidence, Masks
from spex_proxy.facts.game import GameKind
from spex_proxy.facts.seals import canonical_json, seal
from spex_proxy.plug.kinds import Ask, Measured, OpenGame, Player, Rules
from spex_proxy_training import rows, table_files
from spex_proxy_training.section import Section
from spex_proxy_training.table_files import Contents

KNOWN = (
    "file", "masks", "values", "players", "items", "kind", "subject", "unit", "value", "batch",
)  # fmt: skip
KINDS = ("training", "features", "components")
BATCH = 4096


class Table:
    """Games that are played by looking up."""

    name = "table"
    needs_server = False

    def open(self, config: Mapping[str, Any], ask: Ask | None) -> OpenGame:  # noqa: ARG002 - no server is needed
        """Read the file whole. Raises as GameMaker.open."""
        top = Section.of(config, "", KNOWN)
        contents = table_files.read(top)
        return Lookup(rules_of(top, contents), contents)


def load(config: Mapping[str, Any]) -> Contents:
    """What a table holds, without a game. Raises as `Table.open`."""
    return table_files.read(Section.of(config, "", KNOWN))


def rules_of(top: Section, contents: Contents) -> Rules:
    kind = cast(GameKind, top.choice("kind", KINDS, "training"))
    unit, value = top.text("unit", "unknown unit"), top.text("value", "mean")
    about = {"players": list(contents.players), "items": list(contents.items), "kind": kind, "unit": unit, "code": "1"}
    digest = seal(
        b"spex-proxy table 1",
        canonical_json(about),
        np.asarray([*contents.masks.shape, *contents.values.shape], dtype="<i8").tobytes(),
        np.packbits(contents.masks, axis=1).tobytes(),
        contents.values.astype("<f8").tobytes(),
    )
    measured, distinct = len(contents.masks), len(np.unique(np.packbits(contents.masks, axis=1), axis=0))
    repeats = f" They were measured {measured} times in all; repeats are averaged." if measured > distinct else ""
    return Rules(
        kind=kind,
        subject=top.text("subject", rows.title(top.text("file"))),
        players=tuple(Player(name) for name in contents.players),
        items=contents.items,
        value=value,
        unit=unit,
        digest=digest,
        batch=top.whole("batch", BATCH, 1),
        cost="nothing: the values stand in the table",
        notes=(f"The table has {distinct} coalitions; no other one can be asked.{repeats}",),
    )


class Lookup:
    """An open table. Repeats of a coalition are averaged, so that equal masks give equal readings."""

    def __init__(self, rules: Rules, contents: Contents) -> None:
        self.rules = rules
        packed = np.packbits(contents.masks, axis=1)
        _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        counts = np.bincount(which.reshape(-1))
        means = np.zeros((len(first), contents.values.shape[1]))
        np.add.at(means, which.reshape(-1), contents.values)
        means /= counts[:, None]
        self._recorded: Masks = contents.masks[np.sort(first)]
        self._place = {packed[row].tobytes(): number for number, row in enumerate(first)}
        self._means: NDArray[np.float32] = means.astype(np.float32)

    def measure(self, masks: Masks) -> Measured:
        """As OpenGame.measure; coalitions that the table does not hold are failures."""
        if masks.ndim != 2 or masks.shape[1] != len(self.rules.players) or masks.dtype != np.bool_:
            raise ValueError(f"masks must be bool (m, {len(self.rules.players)}), not {masks.dtype} {masks.shape}")
        found = np.full((len(masks), len(self.rules.items)), np.nan, dtype=np.float32)
        failures: dict[int, str] = {}
        for row, mask in enumerate(np.packbits(masks, axis=1)):
            place = self._place.get(mask.tobytes())
            if place is None:
                failures[row] = "the table does not hold this coalition"
            else:
                found[row] = self._means[place]
        return Measured(found, failures)

    def recorded(self) -> Masks:
        """As Recorded.recorded: each coalition once, in the file's order."""
        return self._recorded

    def close(self) -> None:
        """The file was read whole."""


def evidence(contents: Contents) -> Evidence:
    """All that a table knows, one value a row: the mean over its items. Repeats of a mask have replicate numbers.

    For whoever fits without a flow; with it, `conclude` and `decide.settle` take this as any evidence.
    """
    seen: dict[bytes, int] = {}
    replicates = np.zeros(len(contents.masks), dtype=np.int64)
    for row, mask in enumerate(np.packbits(contents.masks, axis=1)):
        replicates[row] = seen.get(mask.tobytes(), 0)
        seen[mask.tobytes()] = int(replicates[row]) + 1
    return Evidence(contents.masks, contents.values.mean(axis=1), replicates)
