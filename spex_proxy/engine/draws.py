"""Masks drawn at random, seeded: uniform ones, and those of the designs that draw otherwise.

Only PCG64's raw words are used. NumPy promises that bit generators keep their
streams; it does not promise that of `Generator.integers` and its kin, and a
resumed job must ask the masks that it would have asked before the upgrade.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.walsh import all_masks, pack_masks
from spex_proxy.facts.evidence import Masks
from spex_proxy.facts.spectrum import WORD_BITS

MIN_UNIFORM = 10
"""Two to each of five folds: below that an out-of-fold R2 is no figure at all."""
MAX_SHUFFLED_PLAYERS = 16
"""Up to here all 2^n masks are shuffled; above, draws are made and the rare repeats dropped."""
MOST_DRAWS = 64
"""Masks are drawn at most so many times over in search of different ones."""

TAILS, LATE_UNIFORM = 8, 8
"""Of a late design: masks that begin alike, and uniform masks to each three such groups."""

MASKS, FOLDS, TREES, BOOTSTRAP, SUBSET, SUBSPACES, LATE = range(7)
"""Independent streams under one seed."""


def raw_words(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    """`count` uniform uint64 words; a longer call begins with the same words.

    Raises ValueError for a negative seed.
    """
    return _generator(seed, stream).random_raw(count)


def raw_rows(seed: int, stream: int, rows: int, width: int, cells: int) -> Iterator[NDArray[np.uint64]]:
    """The words of `raw_words(seed, stream, rows * width)` as rows (r, width), about `cells` of them at a time."""
    generator, step = _generator(seed, stream), max(1, cells // max(1, width))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        yield generator.random_raw(count * width).reshape(count, width)


def _generator(seed: int, stream: int) -> np.random.PCG64:
    if seed < 0:
        raise ValueError(f"the seed is {seed}; seeds are 0 or greater")
    return np.random.PCG64(np.random.SeedSequence([seed, stream]))


def shuffled(count: int, seed: int, stream: int) -> NDArray[np.int64]:
    """A seeded order of 0..count-1, shape (count,)."""
    return np.argsort(raw_words(seed, stream, count), kind="stable").astype(np.int64)


def is_corner(masks: Masks) -> NDArray[np.bool_]:
    """Shape (m,). True for the full, the empty and the leave-one-out masks, which are asked on purpose."""
    kept: NDArray[np.int64] = masks.sum(axis=1, dtype=np.int64)
    corner: NDArray[np.bool_] = (kept == 0) | (kept >= masks.shape[1] - 1)
    return corner


def uniform_masks(n_players: int, count: int, seed: int) -> Masks:
    """Distinct uniform masks off the corner, (count, n); fewer when no more exist.

    A larger count begins with the same masks.
    """
    if n_players <= MAX_SHUFFLED_PLAYERS:
        every = all_masks(n_players)[shuffled(1 << n_players, seed, MASKS)]
        return every[~is_corner(every)][:count]
    words = -(-n_players // WORD_BITS)
    count = min(count, (1 << n_players) - n_players - 2)
    draws = count + WORD_BITS
    while True:
        raw = raw_words(seed, MASKS, draws * words).reshape(draws, words)
        bits = np.unpackbits(raw.astype("<u8").view(np.uint8), axis=1, bitorder="little")
        masks = bits[:, :n_players].astype(np.bool_)
        _, first = np.unique(pack_masks(masks), axis=0, return_index=True)
        masks = masks[np.sort(first)]
        masks = masks[~is_corner(masks)]
        if len(masks) >= count:
            return masks[:count]
        draws *= 2


def paired_masks(n_players: int, count: int, seed: int) -> Masks:
    """Distinct uniform masks, each followed by its complement, neither in the corner; at most count, (count, n).

    A larger count begins with the same masks.
    """
    base = uniform_masks(n_players, count + WORD_BITS, seed)
    base = base[~is_corner(~base)]
    _, first = np.unique(pack_masks(base ^ base[:, :1]), axis=0, return_index=True)
    base = base[np.sort(first)]
    return np.stack([base, ~base], axis=1).reshape(-1, n_players)[: count // 2 * 2]


def kept_masks(n_players: int, share: float, count: int, seed: int) -> Masks:
    """Distinct masks off the corner that keep each player with probability `share` (to 1/65536): at most count.

    Fewer when the share is so near to 0 or 1 that hardly any other masks come. A
    larger count begins with the same masks.
    """
    words, least = -(-n_players // 4), round(share * 65536)
    draws = count + WORD_BITS
    while True:
        raw = raw_words(seed, MASKS, draws * words).astype("<u8").view("<u2").reshape(draws, -1)
        masks = raw[:, :n_players] < least
        _, first = np.unique(pack_masks(masks), axis=0, return_index=True)
        masks = masks[np.sort(first)]
        masks = masks[~is_corner(masks)]
        if len(masks) >= count or draws >= MOST_DRAWS * (count + WORD_BITS):
            return masks[:count]
        draws *= 2


def late_masks(n_players: int, count: int, seed: int) -> tuple[Masks, NDArray[np.bool_]]:
    """Distinct masks off the corner, most in groups that keep and leave the same of the first half of the players, so
    that a server with a prefix cache computes those once a group; at most count, (count, n), and which are uniform.

    MIN_UNIFORM uniform ones, then over and over three groups of TAILS and LATE_UNIFORM uniform ones. Each mask by
    itself is uniform; those of a group are not independent of each other. A larger count begins with the same masks.
    """
    rounds = 1
    while True:
        judged = uniform_masks(n_players, MIN_UNIFORM + LATE_UNIFORM * rounds, seed)
        groups = _late_groups(n_players, 3 * rounds, seed).reshape(rounds, -1, n_players)
        parts, marks = [judged[:MIN_UNIFORM]], [np.ones(len(judged[:MIN_UNIFORM]), dtype=np.bool_)]
        for number, group in enumerate(groups):
            some = judged[MIN_UNIFORM + LATE_UNIFORM * number :][:LATE_UNIFORM]
            parts += [group, some]
            marks += [np.zeros(len(group), dtype=np.bool_), np.ones(len(some), dtype=np.bool_)]
        masks, uniform = np.concatenate(parts), np.concatenate(marks)
        _, first = np.unique(pack_masks(masks), axis=0, return_index=True)
        keep = np.sort(first)
        keep = keep[~is_corner(masks[keep])]
        if len(keep) >= count or len(masks) >= MOST_DRAWS * (count + WORD_BITS):
            return masks[keep[:count]], uniform[keep[:count]]
        rounds *= 2


def _late_groups(n_players: int, count: int, seed: int) -> Masks:
    """Shape (count, TAILS, n): all of a group begin with the same half."""
    words = -(-n_players // WORD_BITS)
    raw = raw_words(seed, LATE, count * (1 + TAILS) * words).reshape(count, 1 + TAILS, words)
    bits = np.unpackbits(raw.astype("<u8").view(np.uint8), axis=2, bitorder="little")[:, :, :n_players]
    masks = bits[:, 1:].astype(np.bool_)
    half = n_players // 2
    masks[:, :, :half] = bits[:, :1, :half].astype(np.bool_)
    return masks


def positions(have: Masks, wanted: Masks) -> NDArray[np.int64]:
    """For each mask of `wanted` (w, n) the last row of `have` (h, n) that equals it, -1 if none does: (w,)."""
    both = pack_masks(np.concatenate([have, wanted]))
    found, inverse = np.unique(both, axis=0, return_inverse=True)
    where = np.full(len(found), -1, dtype=np.int64)
    inverse = inverse.reshape(-1)
    where[inverse[: len(have)]] = np.arange(len(have))
    return where[inverse[len(have) :]]
