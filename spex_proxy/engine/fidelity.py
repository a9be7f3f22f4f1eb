"""How far a spectrum can be trusted: out-of-fold R2, its interval, and the noise beneath it.

R2 = 1 - sum (v - vhat)^2 / sum (v - mean v)^2 over uniform masks (METHOD 1.1),
each predicted by a fit that has not seen it.
"""

from __future__ import annotations

import numpy as np

from spex_proxy.engine.designs import BOOTSTRAP, raw_words
from spex_proxy.facts.evidence import Values

RESAMPLES = 1000
"""Enough for the ends of a 95% interval to stand within about .005."""
INTERVAL = (2.5, 97.5)
"""Percentiles."""


def r_squared(values: Values, predictions: Values) -> float:
    """1 - residual over total sum of squares; 0 when the values do not vary. At most 1, unbounded below."""
    total = float(np.sum((values - values.mean()) ** 2)) if len(values) else 0.0
    return 1.0 - float(np.sum((values - predictions) ** 2)) / total if total > 0 else 0.0


def interval(values: Values, predictions: Values, seed: int) -> tuple[float, float]:
    """95% percentile bootstrap of R2 over masks, seeded. (0, 0) when the values do not vary.

    It holds the fits fixed: it tells how much the choice of test masks matters,
    not how much another design of training masks would.
    """
    m = len(values)
    if m == 0 or not np.ptp(values) > 0:
        return 0.0, 0.0
    picks = (raw_words(seed, BOOTSTRAP, RESAMPLES * m) % np.uint64(m)).astype(np.int64).reshape(RESAMPLES, m)
    centred, squared_error = values - values.mean(), (values - predictions) ** 2
    drawn = centred[picks]
    total = np.sum((drawn - drawn.mean(axis=1, keepdims=True)) ** 2, axis=1)
    residual = np.sum(squared_error[picks], axis=1)
    defined = total > 0
    low, high = np.percentile(1.0 - residual[defined] / total[defined], INTERVAL)
    return float(low), float(high)


def noise_sigma(full_values: Values) -> float:
    """Standard deviation (ddof 1) of repeated measurements of the full prompt; 0 if there is only one."""
    return float(np.std(full_values, ddof=1)) if len(full_values) > 1 else 0.0


def noise_ceiling(sigma: float, values: Values) -> float:
    """1 - sigma^2 / variance of the values, within [0, 1]; 0 when the values do not vary."""
    variance = float(np.var(values)) if len(values) else 0.0
    return float(np.clip(1.0 - sigma**2 / variance, 0.0, 1.0)) if variance > 0 else 0.0
