"""The seam between a game and what learns: examples kept in, scores of the test examples out.

A trainer sees classes 0..c-1 only, c >= 2, each with an example at least. What a coalition with fewer classes is worth
is decided by the game (`readings`), the same for all trainers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Scale = Literal["log_probability", "decision"]
"""What scores are: log-probabilities in nats, or decision values without a scale of their own."""


class Untrained(Exception):
    """This coalition has no reading; the message says why and quotes no content."""


class Trainer(Protocol):
    """Trains anew on whatever it is given. Equal examples in equal order give equal scores."""

    @property
    def name(self) -> str: ...

    @property
    def scale(self) -> Scale: ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that fixes its results beside the data: JSON-able; it goes into the game's digest."""
        ...

    def scores(
        self, features: NDArray[np.float64], labels: NDArray[np.int64], asked: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Train on features (r, f) and labels (r,) in 0..c-1; shape (k, c): how much each class is held to be the
        asked examples' (k, f).

        Raises Untrained for what is expected to go wrong; anything else that it raises is a failure of this
        coalition too.
        """
        ...
