"""From one bin's p + 1 numbers to the terms that may be in it: hard and soft decoding (arXiv 2502.13870, section 4.2).

A bin that holds one term k shows F(k) (-1)^<d_i, k> for each offset i. The signs
are k's parities in the BCH code, the players themselves unknown: a word whose
errors, seen from `no players`, are the players of k, and the offsets whose sign is wrong.

Two departures from the published decoder. The sign of F(k) is not read off the
zero offset, whose number may be anything between two terms that cancel: both signs are
tried. And which of a bin's candidates is taken is decided by how well they explain
the bins of *all* groups, not by how few errors were corrected (`peeling`).
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.spex import bch
from spex_proxy.engine.spex.design import Blueprint
from spex_proxy.engine.walsh import Supports, pack_masks

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

CHASE_BINS = 256
"""Bins that are decoded softly at once."""


def transform(values: Floats) -> Floats:
    """Values (groups, 2^b, offsets) -> bins (groups, 2^b, offsets): the Walsh transform along the points, over 2^b.

    U_c,i(j) = 2^-b sum_l (-1)^<j, l> v(M_c l + d_i) = sum over k with M_c^T k = j of (-1)^<d_i, k> F(k).
    """
    groups, size, offsets = values.shape
    out = values
    for bit in range(size.bit_length() - 1):
        pairs = out.reshape(groups, -1, 2, 1 << bit, offsets)
        low, high = pairs[:, :, 0], pairs[:, :, 1]
        out = np.stack([low + high, low - high], axis=2).reshape(groups, size, offsets)
    transformed: Floats = out / size
    return transformed


def flips(reliabilities: Floats, depth: int, count: int) -> NDArray[np.bool_]:
    """Chase's test patterns: (w, count, p) bits to flip, of the `depth` least reliable ones of each word (w, p).

    The `count` sets of smallest summed reliability, the empty one among them (Chase 1972, algorithm 2's idea).
    """
    depth = min(depth, reliabilities.shape[1])
    weak = np.argsort(reliabilities, axis=1, kind="stable")[:, :depth]
    sets = np.asarray(list(itertools.product((False, True), repeat=depth)), dtype=np.bool_)
    sums = np.take_along_axis(reliabilities, weak, axis=1) @ sets.T.astype(np.float64)
    best = np.argsort(sums, axis=1, kind="stable")[:, :count]
    out = np.zeros((len(weak), best.shape[1], reliabilities.shape[1]), dtype=np.bool_)
    np.put_along_axis(out, np.broadcast_to(weak[:, None, :], (*best.shape, depth)), sets[best], axis=2)
    return out


def candidates(design: Blueprint, group: Numbers, bins: Numbers, contents: Floats, bits: int, soft: bool) -> Supports:
    """Distinct terms that bins (w,) of groups (w,) may hold, by their contents (w, p + 1): shape (terms, words).

    Only terms that belong into their bin (M_c^T k = j), and not the constant.
    """
    found = [np.zeros((0, pack_masks(design.offsets[:1]).shape[1]), dtype=np.uint64)]
    for start in range(0, len(bins), CHASE_BINS):
        part = slice(start, start + CHASE_BINS)
        found.append(decode_bins(design, group[part], bins[part], contents[part], bits, soft))
    distinct: Supports = np.unique(np.concatenate(found), axis=0)
    return distinct


def decode_bins(design: Blueprint, group: Numbers, bins: Numbers, contents: Floats, bits: int, soft: bool) -> Supports:
    """`candidates` of a few bins; a term may come twice."""
    t, p = design.code.t, design.code.p
    numbers = contents[:, 1:]
    words = np.stack([numbers < 0, numbers > 0], axis=1)[:, :, None, :]
    if soft:
        words = words ^ flips(np.abs(numbers), 2 * t, t * (2 * t + 1))[:, None]
    origin = np.repeat(np.arange(len(bins)), words.shape[1] * words.shape[2])
    errors, good = bch.decode(design.code, bch.syndromes(design.code, words.reshape(-1, p)))
    players = errors[good][:, p:]
    origin = origin[good]
    supports: Supports = pack_masks(players)
    belongs = design.bins(supports, bits)[group[origin], np.arange(len(origin))] == bins[origin]
    kept: Supports = supports[belongs & players.any(axis=1)]
    return kept
