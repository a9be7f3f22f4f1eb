"""The game: masks in, readings out, in batches as large as memory allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from spex_proxy.plug.kinds import Measured, Rules
from spex_proxy_components.ablation import Hooks, Layout, Masks
from spex_proxy_components.anatomy import Anatomy
from spex_proxy_components.passes import Prepared, Readings, run
from spex_proxy_components.settings import Wanted

MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
"""How torch's allocators say it where they have no exception of their own, on the CPU for one."""


class OpenComponents:
    """Heads and MLP blocks of one model, against its questions. For one thread at a time."""

    def __init__(
        self,
        rules: Rules,
        anatomy: Anatomy,
        layout: Layout,
        hooks: Hooks,
        prepared: Sequence[Prepared],
        wanted: Wanted,
    ) -> None:
        self.rules = rules
        self._anatomy, self._layout, self._hooks, self._wanted = anatomy, layout, hooks, wanted
        self._prepared = tuple(prepared)
        self._tokens = wanted.tokens
        """Of one pass; less, once memory has run out."""

    def measure(self, masks: NDArray[np.bool_]) -> Measured:
        """Each mask is measured once, however often it is asked. A mask that memory does not allow has no reading."""
        distinct, where = np.unique(masks, axis=0, return_inverse=True)
        found = np.full((len(distinct), len(self.rules.items)), np.nan, dtype=np.float32)
        failed: dict[int, str] = {}
        for prepared in self._prepared:
            self._fill(prepared, distinct, found, failed)
        found[list(failed)] = np.nan
        readings = found[where.reshape(-1)]
        failures = {row: failed[int(at)] for row, at in enumerate(where.reshape(-1)) if int(at) in failed}
        return Measured(readings, failures)

    def close(self) -> None:
        self._hooks.close()
        self._prepared = ()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _fill(self, prepared: Prepared, masks: Masks, found: Readings, failed: dict[int, str]) -> None:
        """One pack's columns of `found`, as many masks at a time as there is room for."""
        start, columns = 0, list(prepared.pack.questions)
        while start < len(masks):
            rows = max(1, self._tokens // len(prepared.pack))
            stop = min(start + rows, len(masks))
            try:
                found[start:stop, columns] = self._run(prepared, masks[start:stop])
            except (RuntimeError, MemoryError) as error:
                if not is_memory(error):
                    raise
                if stop - start == 1:
                    failed[start] = f"out of memory with one mask and {len(prepared.pack)} tokens"
                else:
                    self._tokens = len(prepared.pack) * ((stop - start) // 2)
                    continue
            start = stop

    def _run(self, prepared: Prepared, masks: Masks) -> Readings:
        return run(
            self._anatomy, self._layout, self._hooks, prepared, masks, self._wanted.value, self._wanted.rescale_heads
        )


def is_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in MEMORY_WORDS)
