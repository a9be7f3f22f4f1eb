"""Evidence, checked and put into one order: the only form that a fit reads.

Whatever order blocks were committed in, and wherever a crash fell, equal
evidence gives equal rows, bit for bit; every later sum runs in this order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.draws import is_corner
from spex_proxy.engine.walsh import lexical, pack_masks
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence, Masks, Values

MOST_VALUE = 1e150
"""Squares, and sums of them, must be floats; and so must their inverses."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """One row per distinct mask, canonically sorted; replicates of a mask are averaged."""

    masks: Masks
    """Shape (m, n)."""
    values: Values
    """Shape (m,)."""
    uniform: NDArray[np.bool_]
    """Shape (m,). False for the corner (full, empty, leave-one-outs), which is asked on purpose and
    so is no sample of uniform masks; fidelity is computed over the others. `designs.fair` leaves fewer."""
    full_values: Values
    """Shape (r,). Each measurement of the full mask, by replicate number."""
    units: NDArray[np.int64] | None = None
    """Shape (m,). Rows drawn together have the same number (`designs.units`); None: each was drawn by itself. Out of
    fold is out of the fold of the whole unit: of a mask and its complement all even terms are equal."""

    @property
    def n_players(self) -> int:
        return int(self.masks.shape[1])

    def __len__(self) -> int:
        return int(self.masks.shape[0])

    @property
    def complete(self) -> bool:
        """True when every one of the 2^n masks was measured."""
        return self.n_players < 63 and len(self) == 1 << self.n_players

    @property
    def value_full(self) -> float:
        """Mean value of the full mask; NaN when it was not measured."""
        return float(np.mean(self.full_values)) if len(self.full_values) else float("nan")

    @property
    def value_empty(self) -> float:
        """Value of the empty mask; NaN when it was not measured."""
        found = self.values[~self.masks.any(axis=1)]
        return float(found[0]) if len(found) else float("nan")


def rows_of(evidence: Evidence) -> Rows:
    """Check, sort, and average replicates.

    Raises BadEvidence for no players, wrong shapes or kinds, negative replicate
    numbers, NaN or infinite values, and one (mask, replicate) with two values.
    """
    check_shapes(evidence)
    order = np.lexsort([evidence.replicates, *lexical(pack_masks(evidence.masks))])
    masks, values = evidence.masks[order], evidence.values[order].astype(np.float64)
    replicates = evidence.replicates[order]
    new_mask = np.ones(len(order), dtype=np.bool_)
    new_mask[1:] = (masks[1:] != masks[:-1]).any(axis=1)
    twice = ~new_mask
    twice[1:] &= replicates[1:] == replicates[:-1]
    clash = np.flatnonzero(twice & (values != np.roll(values, 1)))
    if len(clash):
        late, early = int(order[clash[0]]), int(order[clash[0] - 1])
        raise BadEvidence(
            f"rows {min(early, late)} and {max(early, late)} give the same mask and replicate number "
            "different values; a repeated measurement needs a replicate number of its own"
        )
    group = np.cumsum(new_mask)[~twice] - 1
    counts = np.bincount(group, minlength=int(new_mask.sum()))
    means = np.bincount(group, weights=values[~twice], minlength=len(counts)) / counts
    distinct = masks[new_mask]
    return Rows(distinct, means, ~is_corner(distinct), values[~twice & masks.all(axis=1)])


def numbered(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same units (m,), by new numbers: from 0, in the order in which they first come."""
    _, first, which = np.unique(units, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), dtype=np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    return numbers[which.reshape(-1)]


def check_size(values: Values) -> None:
    """Raises BadEvidence for values whose squares leave what a float can hold: a fit would fail, or say NaN."""
    largest = float(np.abs(values).max(initial=0.0))
    spread = float(np.ptp(values)) if len(values) else 0.0
    if largest > MOST_VALUE or 0 < spread < 1 / MOST_VALUE:
        what = f"reach {largest:.3g}" if largest > MOST_VALUE else f"differ by {spread:.3g} at most"
        raise BadEvidence(f"values {what}: give them in another unit, for squares of them are no numbers any more")


def check_shapes(evidence: Evidence) -> None:
    """Raises BadEvidence, naming the row where there is one to name."""
    masks, values, replicates = evidence.masks, evidence.values, evidence.replicates
    if masks.ndim != 2 or masks.dtype != np.bool_:
        raise BadEvidence(f"masks must be a bool array (m, n), not {masks.dtype} of shape {masks.shape}")
    if masks.shape[1] == 0:
        raise BadEvidence("a game without players has nothing to mask")
    m = masks.shape[0]
    if values.shape != (m,) or replicates.shape != (m,):
        raise BadEvidence(f"{m} masks came with values {values.shape} and replicates {replicates.shape}")
    if not (np.issubdtype(values.dtype, np.floating) and np.issubdtype(replicates.dtype, np.integer)):
        kinds = f"{values.dtype} and {replicates.dtype}"
        raise BadEvidence(f"values must be floats and replicate numbers integers, not {kinds}")
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        row = int(wrong[0])
        raise BadEvidence(f"row {row} has the value {values[row]}; there are {len(wrong)} such rows")
    check_size(values)
    wrong = np.flatnonzero(replicates < 0)
    if len(wrong):
        raise BadEvidence(f"row {int(wrong[0])} has the replicate number {int(replicates[wrong[0]])}")
