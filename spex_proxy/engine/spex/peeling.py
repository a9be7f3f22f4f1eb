"""Peeling: terms that explain a bin are taken out of every group's bins, until nothing more comes loose.

Differences from the published peeling, each needed by a test or measured (docs/engine.md):

- after each round the coefficients of *all* terms are fitted anew, by least squares over all bins, each bin
  weighed by what was left in it: bins that hold unknown terms don't spoil the known ones, and an early error is
  not passed on;
- a term is believed for what it explains in the bins of all groups against what it leaves there, so no noise
  level has to be given, and equal or cancelling terms in a bin fool nobody;
- when decoding stalls, small terms are tried one by one (`sweep`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.spex import decode, sweep
from spex_proxy.engine.spex.design import Blueprint
from spex_proxy.engine.walsh import Supports

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

ROUNDS = 80
DECODED_SCORE = 5.0
"""Standard errors that a decoded term must stand out by; a round has a few hundred candidates."""
SWEPT_SCORES = np.asarray([np.inf, 4.0, 5.0, 5.5])
"""The same for terms of one, two, three or more players that were tried because they are small: of these there are
up to a thousand, half a million, 200,000. Pure noise then gives about one false term in ten games."""
SWEPT_SHARE = 0.5
"""Of the terms that a sweep finds, those are taken whose score is at least this share of the best one's."""
KEPT_SCORE = 3.0
"""Standard errors under which a fitted term is dropped in the end."""
BELIEF = 8
"""A bin's variance is held towards the median's as by so many numbers: pure noise then gives few false terms."""
QUIET = 0.1
"""The noise is taken to be that of the quietest tenth of bins: many may hold terms yet."""
CHANGED = 0.01
"""A bin whose contents moved by more than this share of its energy is decoded again."""
ROUNDING = 1e-10
"""Bins whose root mean square is under this share of all values' are empty: arithmetic, not measurement."""
JITTER = 1e-12
"""Added to a correlation matrix's diagonal, against terms that no bin tells apart."""
MOST_TERMS = 4
"""No more terms than 1/4 of the numbers in the bins."""


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """All bins of a complete design."""

    design: Blueprint
    bits: int
    contents: Floats
    """Shape (groups, 2^bits, p + 1)."""

    def places(self, supports: Supports) -> tuple[Numbers, Floats]:
        """Each term's bins (groups, k) and signature (k, p + 1)."""
        return self.design.bins(supports, self.bits), self.design.signatures(supports)


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What was found: distinct terms, the constant among them."""

    supports: Supports
    """Shape (k, words)."""
    coefficients: Floats
    """Shape (k,). In the value's unit."""
    errors: Floats
    """Shape (k,). Standard errors, if what is left is noise."""
    left: Floats
    """Shape (groups, 2^bits, p + 1). What the terms don't explain of the bins."""


def peel(bins: Bins, soft: bool = True) -> Terms:
    """Decode, fit, take out, again. Contents without any term give the constant alone."""
    masks = bins.design.masks(bins.bits).reshape(-1, bins.design.layout.n_players)
    constant = np.zeros((1, -(-masks.shape[1] // 64)), dtype=np.uint64)
    floor = (ROUNDING * float(np.sqrt((bins.contents**2).sum(axis=1).mean()))) ** 2
    found = fit(bins, constant, bins.contents, floor)
    again = np.ones(bins.contents.shape[:2], dtype=np.bool_)
    for _ in range(ROUNDS):
        full = (found.left**2).mean(axis=2) > floor
        new = decoded(bins, found, again & full, floor, soft) if (again & full).any() else found.supports[:0]
        if not len(new) and full.any():
            new = swept(bins, found, masks, floor)
        if not len(new) or len(found.supports) + len(new) > bins.contents.size // MOST_TERMS:
            break
        before = found.left
        supports = np.concatenate([found.supports, new])
        found = fit(bins, supports, taken_out(bins, new, found.left, floor), floor)
        again = ((found.left - before) ** 2).sum(axis=2) > CHANGED * (before**2).sum(axis=2)
    return pruned(bins, found, floor)


def fit(bins: Bins, supports: Supports, left: Floats, floor: float) -> Terms:
    """Least squares over all bins, twice, each bin weighed by 1 / (what is left in it + what is left in quiet ones).

    `left` (groups, 2^bits, p + 1) is where the first weights come from.
    """
    places, signatures = bins.places(supports)
    rough = weighted(bins, supports, places, signatures, left, floor)
    return weighted(bins, supports, places, signatures, rough.left, floor)


def weighted(bins: Bins, supports: Supports, places: Numbers, signatures: Floats, left: Floats, floor: float) -> Terms:
    """One weighted least squares. Terms of one bin are told apart by their signatures."""
    energy = (left**2).mean(axis=2)
    weights = 1 / (energy + max(floor, float(np.quantile(energy, QUIET))))
    gram, right = np.zeros((len(supports), len(supports))), np.zeros(len(supports))
    for group, place in enumerate(places):
        weight = weights[group, place]
        gram += (place[:, None] == place) * weight
        right += weight * (signatures * bins.contents[group, place]).sum(axis=1)
    gram *= signatures @ signatures.T
    scale = 1 / np.sqrt(np.diag(gram))
    inverse = np.linalg.inv(gram * scale[:, None] * scale + JITTER * np.eye(len(scale)))
    coefficients = scale * (inverse @ (scale * right))
    after = remainder(bins.contents, places, coefficients[:, None] * signatures)
    return Terms(supports, coefficients, scale * np.sqrt(np.diag(inverse)), after)


def remainder(contents: Floats, places: Numbers, patterns: Floats) -> Floats:
    """Contents less each term's pattern (k, p + 1) in its bins (groups, k)."""
    left = contents.copy()
    for group, place in enumerate(places):
        np.subtract.at(left[group], place, patterns)
    return left


def scores(bins: Bins, supports: Supports, left: Floats, floor: float) -> tuple[Floats, Floats]:
    """Each term's coefficient by what is left in its bins, and by how many standard errors it is not 0: (k,) both.

    A bin's estimate <signature, contents> / (p + 1) has for variance what the term would leave in that
    bin, held towards what the median bin holds (p numbers say little when p is small); groups are averaged by these.
    """
    places, signatures = bins.places(supports)
    energy, p = (left**2).mean(axis=2), signatures.shape[1] - 1
    middle = max(floor, float(np.median(energy)))
    own = np.stack([(signatures * left[group, place]).mean(axis=1) for group, place in enumerate(places)])
    there = np.take_along_axis(energy, places, axis=1)
    variance = (p * np.maximum(there - own**2, floor) + BELIEF * middle) / (p + BELIEF)
    precision = p / variance
    total = precision.sum(axis=0)
    estimates: Floats = (precision * own).sum(axis=0) / total
    return estimates, np.abs(estimates) * np.sqrt(total)


def taken_out(bins: Bins, supports: Supports, left: Floats, floor: float) -> Floats:
    """What would be left without new terms, by their own bins' estimates: where the next fit's weights come from."""
    places, signatures = bins.places(supports)
    estimates, _ = scores(bins, supports, left, floor)
    return remainder(left, places, estimates[:, None] * signatures)


def decoded(bins: Bins, found: Terms, where: NDArray[np.bool_], floor: float, soft: bool) -> Supports:
    """New terms from the bins that are marked (groups, 2^bits): the best ones, at most one in each bin."""
    group, place = np.nonzero(where)
    some = decode.candidates(bins.design, group, place, found.left[group, place], bins.bits, soft)
    some = unknown(some, found.supports)
    if not len(some):
        return some
    _, score = scores(bins, some, found.left, floor)
    some, score = some[score > DECODED_SCORE], score[score > DECODED_SCORE]
    order = np.argsort(-score, kind="stable")
    places, _ = bins.places(some[order])
    taken, chosen = np.zeros(where.shape, dtype=np.bool_), []
    groups = np.arange(len(taken))
    for number, own in zip(order, places.T, strict=True):
        if not taken[groups, own].any():
            taken[groups, own] = True
            chosen.append(int(number))
    return some[chosen]


def swept(bins: Bins, found: Terms, masks: NDArray[np.bool_], floor: float) -> Supports:
    """New small terms, none if no one stands out."""
    residuals = decode.transform(found.left) * found.left.shape[1]  # the transform, over 2^b, is its own inverse
    some = unknown(sweep.strongest(masks, residuals.reshape(-1)), found.supports)
    if not len(some):
        return some
    _, score = scores(bins, some, found.left, floor)
    excess = score / SWEPT_SCORES[np.minimum(np.bitwise_count(some).sum(axis=1), 3)]
    best: Supports = some[excess > max(1.0, SWEPT_SHARE * float(excess.max()))]
    return best


def unknown(some: Supports, known: Supports) -> Supports:
    """Those terms of `some` (distinct) that aren't in `known`."""
    _, first, counts = np.unique(np.concatenate([some, known]), axis=0, return_index=True, return_counts=True)
    fresh: Supports = some[np.sort(first[(counts == 1) & (first < len(some))])]
    return fresh


def pruned(bins: Bins, found: Terms, floor: float) -> Terms:
    """Without terms that don't stand out once all are known."""
    while True:
        keep = (np.abs(found.coefficients) >= KEPT_SCORE * found.errors) | ~found.supports.any(axis=1)
        if keep.all():
            return found
        found = fit(bins, found.supports[keep], found.left, floor)
