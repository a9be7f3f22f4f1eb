"""What a sample says of all: shares and means with intervals, from the probability of each to be in the sample.

Every exchange was drawn on its own (Poisson sampling), with a probability p_i that is stored. Horvitz & Thompson
(1952): sum of 1/p_i estimates how many there were. Hajek (1971): the mean of y is sum(y_i/p_i) / sum(1/p_i), with
variance sum((1-p_i) (y_i - mean)^2 / p_i^2) / (sum 1/p_i)^2 (Saerndal, Swensson & Wretman 1992, 5.7, linearised).
For shares Wilson's interval is taken at the sample size that has this variance, since mean +- 2 errors says
nothing where a share is near 0 or 1. A sample of all (p_i = 1) has no error: its interval is a point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Z95 = 1.959964
"""Of the normal distribution: 95% lie within."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a population, with its 95% interval; all nan if there is nothing to estimate from."""

    value: float
    low: float
    high: float
    n: int
    """Members of the sample that it is from."""


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def count(probabilities: Numbers) -> Estimate:
    """How many there were, (n,) inclusion probabilities in (0, 1]. Never fewer than were seen."""
    n = len(probabilities)
    if not n:
        return Estimate(0.0, 0.0, 0.0, 0)
    weights = 1.0 / probabilities
    value = float(weights.sum())
    error = Z95 * math.sqrt(float(((1.0 - probabilities) * weights**2).sum()))
    return Estimate(value, max(float(n), value - error), value + error, n)


def share(members: NDArray[np.bool_], probabilities: Numbers) -> Estimate:
    """Which share of all are such, from (n,) whether each of the sample is."""
    n = len(members)
    if not n:
        return NOTHING
    weights = 1.0 / probabilities
    value, variance = _mean(members.astype(np.float64), weights, probabilities)
    if not (probabilities < 1.0).any():
        return Estimate(value, value, value, n)
    spread = float(((1.0 - probabilities) * weights**2).sum())
    size = float(weights.sum()) ** 2 / spread
    if variance > 0.0:
        size = min(size, value * (1.0 - value) / variance)
    low, high = wilson(value, size)
    return Estimate(value, low, high, n)


def mean(values: Numbers, probabilities: Numbers) -> Estimate:
    """The mean of all, from (n,) values of the sample. Student's t, n - 1 degrees of freedom."""
    n = len(values)
    if not n:
        return NOTHING
    value, variance = _mean(values, 1.0 / probabilities, probabilities)
    if not (probabilities < 1.0).any():
        return Estimate(value, value, value, n)
    if n == 1:
        return Estimate(value, math.nan, math.nan, 1)
    error = float(stdtrit(n - 1, 0.975)) * math.sqrt(variance)
    return Estimate(value, value - error, value + error, n)


def wilson(value: float, size: float) -> tuple[float, float]:
    """Wilson's (1927) 95% interval of a share that was seen in `size` draws."""
    square = Z95 * Z95 / size
    middle = (value + square / 2.0) / (1.0 + square)
    half = math.sqrt(value * (1.0 - value) * square + square * square / 4.0) / (1.0 + square)
    return max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half))


def _mean(values: Numbers, weights: Numbers, probabilities: Numbers) -> tuple[float, float]:
    total = float(weights.sum())
    value = float(weights @ values) / total
    n = len(values)
    few = n / (n - 1) if n > 1 else 1.0
    variance = few * float(((1.0 - probabilities) * weights**2 * (values - value) ** 2).sum()) / total**2
    return value, variance
