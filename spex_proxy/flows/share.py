"""Several workers measure one game: each its own part of a round first, then what the others have left.

Whoever is to ask next is decided from what is missing, so a worker that comes late, or dies, changes who asks and
nothing else: what it answered is stored, what it was asking is left for the others.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Masks, Replicates
from spex_proxy.flows.batch import in_order
from spex_proxy.store.outbox import Job


@dataclass(frozen=True, slots=True)
class Share:
    """Part `part` of `of`, from 0."""

    part: int = 0
    of: int = 1

    @classmethod
    def of_job(cls, job: Job | None) -> Share:
        task = (job.task if job else None) or {}
        return cls(int(task.get("part", 0)), int(task.get("of", 1)))

    def order(self, masks: Masks, replicates: Replicates) -> NDArray[np.intp]:
        """Row numbers of the masks (m, n) that this part asks, its own first; the others' from their end, so that
        whoever helps meets them late."""
        rows = in_order(masks, replicates)
        if self.of == 1:
            return rows
        packed = np.packbits(masks, axis=1)
        keys = (zlib.crc32(packed[row].tobytes() + bytes([int(replicates[row]) % 256])) for row in rows)
        is_mine = np.asarray([key % self.of == self.part for key in keys], dtype=np.bool_)
        return np.concatenate([rows[is_mine], rows[~is_mine][::-1]])
