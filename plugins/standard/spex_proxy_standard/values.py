"""Values: what the model answered becomes one number per coalition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Values


class SumLogProbability:
    """Log-probability in nats of the original output: the sum over its tokens.

    Teacher-forced, at temperature 1. Summed in float64, whatever the tokens came in.
    """

    name = "sum_logprob"
    unit = "nats"

    def read(self, logprobs: NDArray[np.float32]) -> Values:
        total: Values = np.asarray(logprobs, dtype=np.float64).sum(axis=1)
        return total


class Mean:
    """The mean of a reading's numbers, whatever they are: of the questions or test examples of a game."""

    name = "mean"
    unit = "per item"

    def read(self, logprobs: NDArray[np.float32]) -> Values:
        mean: Values = np.asarray(logprobs, dtype=np.float64).mean(axis=1)
        return mean
