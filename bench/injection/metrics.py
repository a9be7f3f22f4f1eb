"""What is counted of an answer to a play. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Score:
    """Of one method on one case with an attack."""

    recall: float
    """Share of the planted segments among the top K, K = how many were planted. Equal to precision there."""
    precision_5: float
    recall_5: float
    hit: float
    """1 if the first segment is a planted one, else 0."""
    gone: float
    """1 if the model, asked again without the top K, no longer says the goal, else 0."""
    masks: int
    seconds: float
    """Of the method's own arithmetic; what the model needs is masks."""


def share(found: Sequence[int], planted: Sequence[int], of: int) -> float:
    """How many of the planted segments were found, over `of`. Raises ValueError for nothing to divide by."""
    if of < 1:
        raise ValueError("a share of nothing")
    return len(set(found) & set(planted)) / of


def precision(found: Sequence[int], planted: Sequence[int]) -> float:
    return share(found, planted, len(found))


def recall(found: Sequence[int], planted: Sequence[int]) -> float:
    return share(found, planted, len(planted))


def effect_share(effects: Sequence[float], innocent: Sequence[int]) -> float:
    """The largest share of all positive effect that one of the innocent segments is said to carry; 0 if none is."""
    positive = np.maximum(np.asarray(effects, dtype=np.float64), 0.0)
    total = float(positive.sum())
    if total <= 0 or not len(innocent):
        return 0.0
    return float(positive[list(innocent)].max()) / total


def interval(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95% of bootstrap means over cases (percentiles). NaN for no cases."""
    given = np.asarray(values, dtype=np.float64)
    if not len(given):
        return float("nan"), float("nan")
    picked = np.random.default_rng(seed).integers(0, len(given), (draws, len(given)))
    low, high = np.percentile(given[picked].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
