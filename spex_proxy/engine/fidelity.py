"""How far a spectrum can be trusted: out-of-fold R2, its interval, and the noise beneath it.

R2 = 1 - sum (v - vhat)^2 / sum (v - mean v)^2 over uniform masks,
each predicted by a fit that has not seen it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.draws import BOOTSTRAP, raw_rows
from spex_proxy.engine.rows import numbered
from spex_proxy.facts.evidence import Values

RESAMPLES = 1000
"""Enough for the ends of a 95% interval to stand within about .005."""
INTERVAL = (2.5, 97.5)
"""Percentiles."""
SEEN = 0.8
"""Share of the rows that the fits which are judged have seen, against the final fit: four folds of five."""
FALL = 3.0
"""1 - R2 is taken to fall with the rows like N^-FALL at most. Where a sparse spectrum comes into reach it falls
far faster than a regression's 1/N: of 57 generated games exponent 1 left 18% of the final fits above, 3 leaves 4%."""
CELLS = 1 << 20
"""Most numbers that are drawn at once: 8 MiB, and some ten arrays of that size beside them."""


def r_squared(values: Values, predictions: Values) -> float:
    """1 - residual over total sum of squares; 0 when the values do not vary. At most 1, unbounded below."""
    total = float(np.sum((values - values.mean()) ** 2)) if len(values) else 0.0
    return 1.0 - float(np.sum((values - predictions) ** 2)) / total if total > 0 else 0.0


def interval(
    values: Values, predictions: Values, seed: int, units: NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """95% interval of the final fit's R2, from out-of-fold predictions; seeded. (0, 0) when values do not vary.

    Bootstrap-t (Efron & Tibshirani 1993, 12.5) of log(1 - R2) over masks. The upper end is then raised
    for the rows that the judged fits did not see: to SEEN^FALL of the error that is left. How often it holds
    R2 on fresh masks is measured by `bench.coverage`. What it cannot know is values so rare that none
    was drawn: a heavy-tailed game whose sample looked harmless lies below. `units` (m,): masks that were drawn
    together are drawn again together (the cluster bootstrap; Davison & Hinkley 1997, 3.8).
    """
    m = len(values)
    if m == 0 or not np.ptp(values) > 0:
        return 0.0, 0.0
    order = np.lexsort([predictions, values])  # the order of masks is that of the players' numbers
    values, errors = values[order], (values - predictions)[order] ** 2
    if not errors.any():
        return 1.0, 1.0
    unit = np.arange(m) if units is None else numbered(units[order])
    where = together(unit)
    is_there = (where >= 0).astype(np.float64)
    values, errors = values[where], errors[where]
    here, width = (float(x[0]) for x in unexplained(values[None], errors[None], is_there[None]))
    drawn, widths = np.empty(RESAMPLES), np.empty(RESAMPLES)
    done = 0
    for words in raw_rows(seed, BOOTSTRAP, RESAMPLES, len(where), CELLS // where.shape[1]):
        picks, now = (words % np.uint64(len(where))).astype(np.int64), slice(done, done + len(words))
        drawn[now], widths[now] = unexplained(values[picks], errors[picks], is_there[picks])
        done += len(words)
    defined = np.isfinite(drawn) & (widths > 0)
    if not defined.any() or not width > 0:
        return 1.0 - float(np.exp(here)), 1.0 - SEEN**FALL * float(np.exp(here))
    early, late = np.percentile((drawn[defined] - here) / widths[defined], INTERVAL)
    low, high = here - early * width, here - late * width
    return 1.0 - float(np.exp(low)), 1.0 - SEEN**FALL * float(np.exp(high))


def together(unit: NDArray[np.int64]) -> NDArray[np.int64]:
    """Units (m,), numbered from 0 -> the rows of each, (units, most rows of one), filled up with -1."""
    sizes = np.bincount(unit)
    out = np.full((len(sizes), int(sizes.max())), -1, dtype=np.int64)
    rows = np.argsort(unit, kind="stable")
    out[unit[rows], np.arange(len(unit)) - (np.cumsum(sizes) - sizes)[unit[rows]]] = rows
    return out


def unexplained(values: Values, errors: Values, is_there: Values) -> tuple[Values, Values]:
    """log(1 - R2) of each sample, and its standard error (delta method over units): (b,) both.

    Values and squared errors (b, units, rows of one), of which those count where `is_there` is 1, not 0. Not finite
    where a sample's values or errors are all alike 0.
    """
    b, units, _ = values.shape
    shape = b, -1
    values, errors, is_there = values.reshape(shape), (errors * is_there).reshape(shape), is_there.reshape(shape)
    count = is_there.sum(axis=1)
    spread = (values - ((values * is_there).sum(axis=1) / count)[:, None]) ** 2 * is_there
    with np.errstate(divide="ignore", invalid="ignore"):
        error, total = errors.sum(axis=1) / count, spread.sum(axis=1) / count
        slopes = (errors / error[:, None] - spread / total[:, None]).reshape(b, units, -1).sum(axis=2)
        return np.log(error / total), np.sqrt((slopes**2).mean(axis=1) / units) * (units / count)


def noise_sigma(full_values: Values) -> float:
    """Standard deviation (ddof 1) of repeated measurements of the full prompt; 0 if there is only one."""
    return float(np.std(full_values, ddof=1)) if len(full_values) > 1 else 0.0


def noise_ceiling(sigma: float, values: Values) -> float:
    """1 - sigma^2 / variance of the values, within [0, 1]; 0 when the values do not vary."""
    variance = float(np.var(values)) if len(values) else 0.0
    return float(np.clip(1.0 - sigma**2 / variance, 0.0, 1.0)) if variance > 0 else 0.0
