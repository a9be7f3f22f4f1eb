"""Scores of the classes that were learnt -> one number for each test example, whatever was kept.

A coalition may keep no example of some classes, or none at all. It is worth something all the same, by rules that
hold for every trainer:

*Log-probabilities.* With r examples kept, c of K classes among them, the trainer's probabilities share
(r + c) / (r + K), and every class without an example has 1 / (r + K): its share in the class frequencies with one
example of each class added (Laplace). So no examples give log 1/K, and one class left gives these frequencies
themselves. Probabilities under `LEAST` count as LEAST, so that one sure mistake does not outweigh everything.

*Decision values* have no scale that frequencies could be put on. Classes without an example score one, the width of
a support vector machine's margin, under the lowest of the others; with no examples all classes score 0.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spex_proxy_training.trainer import Scale

Reading = Literal["margin", "log_probability"]
LEAST = 1e-9
"""Probability. Log-probabilities end at -20.7 nats."""


def of_all_classes(
    scores: NDArray[np.float64], present: NDArray[np.int64], kept: int, classes: int, scale: Scale
) -> NDArray[np.float64]:
    """Scores (k, c) of the classes `present` (c,) -> scores (k, K). `kept`: how many examples were trained on."""
    items, learnt = scores.shape
    if scale == "log_probability":
        full = np.full((items, classes), -np.log(kept + classes))
        if learnt:
            full[:, present] = np.maximum(scores, np.log(LEAST)) + np.log((kept + learnt) / (kept + classes))
        return full
    if learnt == 0:
        return np.zeros((items, classes))
    full = np.repeat(scores.min(axis=1, keepdims=True) - 1.0, classes, axis=1)
    full[:, present] = scores
    return full


def read(scores: NDArray[np.float64], right: NDArray[np.int64], reading: Reading) -> NDArray[np.float64]:
    """Scores (k, K) and right classes (k,) -> (k,): the right class's score, or by how much it beats the best other."""
    rows = np.arange(len(right))
    own = scores[rows, right]
    if reading == "log_probability":
        return own
    others = scores.copy()
    others[rows, right] = -np.inf
    margins: NDArray[np.float64] = own - others.max(axis=1)
    return margins
