"""Arithmetic on Walsh (Fourier) spectra, done on bitsets.

Players are bits: bit j of word w is player 64*w + j, in supports and in packed
masks alike (facts.spectrum). chi_T(mask) = (-1)^|T & mask|, so a parity of
bits is all there ever is to compute. Convention of SPEX (arXiv
2502.13870, 2505.17495): F(T) = 2^-n sum_S (-1)^|S & T| v(S).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Masks, Values
from spex_proxy.facts.spectrum import WORD_BITS, Spectrum

Supports = NDArray[np.uint64]
"""Shape (terms, ceil(n/64)). Row = one set of players."""
Coefficients = NDArray[np.float64]
"""Shape (terms,). In the value's unit."""

CHUNK_CELLS = 1 << 22
"""Most cells of a character matrix that are worked on at once: 32 MiB of uint64."""
MAX_EXACT_PLAYERS = 24
"""2^24 values are 128 MiB; nobody measures more."""


def pack_masks(masks: Masks) -> Supports:
    """Masks (m, n) bool -> bitsets (m, ceil(n/64)) uint64, at least one word."""
    m, n = masks.shape
    words = max(1, -(-n // WORD_BITS))
    padded = np.zeros((m, words * WORD_BITS), dtype=np.bool_)
    padded[:, :n] = masks
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def characters(masks: Masks, supports: Supports) -> NDArray[np.float64]:
    """chi_T(mask) for every mask and term: float64 (m, terms) of +1 and -1.

    Raises ValueError if the supports' width does not fit the masks' players.
    """
    packed = pack_masks(masks)
    if supports.ndim != 2 or supports.shape[1] != packed.shape[1]:
        raise ValueError(f"supports of shape {supports.shape} don't fit masks of {masks.shape[1]} players")
    out = np.empty((packed.shape[0], supports.shape[0]), dtype=np.float64)
    step = max(1, CHUNK_CELLS // max(1, supports.shape[0]))
    for start in range(0, packed.shape[0], step):
        rows = packed[start : start + step]
        joint = rows[:, 0, None] & supports[None, :, 0]
        for word in range(1, packed.shape[1]):
            joint ^= rows[:, word, None] & supports[None, :, word]
        out[start : start + step] = 1.0 - 2.0 * (np.bitwise_count(joint) & 1)
    return out


def predict(spectrum: Spectrum, masks: Masks) -> Values:
    """What the spectrum says of each mask: float64 (m,), in the value's unit."""
    if masks.ndim != 2 or masks.shape[1] != spectrum.n_players:
        raise ValueError(f"masks of shape {masks.shape} don't fit {spectrum.n_players} players")
    out = np.empty(masks.shape[0], dtype=np.float64)
    step = max(1, CHUNK_CELLS // max(1, len(spectrum)))
    for start in range(0, masks.shape[0], step):
        chunk = masks[start : start + step]
        out[start : start + step] = characters(chunk, spectrum.supports) @ spectrum.coefficients
    return out


def lexical(words: Supports) -> list[NDArray[np.uint64]]:
    """Keys for np.lexsort that order sets of one size as their sorted tuples of players are ordered.

    Of two sets the one that holds the lowest differing player comes first: bits
    reversed (player 0 highest), then complemented.
    """
    as_bits = np.unpackbits(words.astype("<u8").view(np.uint8), axis=1, bitorder="little")
    reversed_words = np.packbits(as_bits, axis=1).view(">u8").astype(np.uint64)
    return [~reversed_words[:, word] for word in reversed(range(words.shape[1]))]


def gather(n_players: int, supports: Supports, coefficients: Coefficients) -> Spectrum:
    """Sum equal supports, add the constant if it is missing, sort canonically.

    The sum runs in the rows' order, so equal input gives equal bits.
    """
    supports = np.concatenate([np.zeros((1, supports.shape[1]), dtype=np.uint64), supports])
    coefficients = np.concatenate([np.zeros(1), coefficients])
    order = np.lexsort(supports.T)
    supports, coefficients = supports[order], coefficients[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (supports[1:] != supports[:-1]).any(axis=1)
    sums = np.bincount(np.cumsum(first) - 1, weights=coefficients)
    return ordered(n_players, supports[first], sums.astype(np.float64))


def ordered(n_players: int, supports: Supports, coefficients: Coefficients) -> Spectrum:
    """Distinct supports, the constant among them, in any order -> Spectrum (sorted by size, then players)."""
    sizes = np.bitwise_count(supports).sum(axis=1, dtype=np.int64)
    order = np.lexsort([*lexical(supports), sizes])
    return Spectrum(n_players, np.ascontiguousarray(supports[order]), coefficients[order])


def truncate(spectrum: Spectrum, k: int) -> Spectrum:
    """The constant and the `k` other terms of largest |F|; equal ones in canonical order.

    Never a cut by energy: 95% of the energy caps R2 at .95. Terms
    whose coefficient is exactly 0 go too. Standard errors go along.
    """
    if k < 0:
        raise ValueError(f"can't keep {k} terms")
    strength = np.abs(spectrum.coefficients[1:])
    strongest = np.argsort(-strength, kind="stable")[:k]
    keep = np.concatenate([[0], 1 + np.sort(strongest[strength[strongest] > 0])]).astype(np.intp)
    errors = spectrum.standard_errors
    return Spectrum(
        spectrum.n_players,
        spectrum.supports[keep],
        spectrum.coefficients[keep],
        None if errors is None else errors[keep],
    )


def combine(spectra: Sequence[Spectrum], weights: Sequence[float]) -> Spectrum:
    """sum_j weights[j] * spectra[j]. Standard errors are dropped: their covariance is unknown."""
    if not spectra or len(spectra) != len(weights):
        raise ValueError(f"{len(spectra)} spectra and {len(weights)} weights can't be combined")
    n_players = spectra[0].n_players
    if any(s.n_players != n_players for s in spectra):
        raise ValueError("spectra over different players can't be combined")
    supports = np.concatenate([s.supports for s in spectra])
    scaled = np.concatenate([w * s.coefficients for w, s in zip(weights, spectra, strict=True)])
    return gather(n_players, supports, scaled)


def all_masks(n_players: int) -> Masks:
    """Every mask once, (2^n, n) bool: bit j of the row's number is player j."""
    if not 0 <= n_players <= MAX_EXACT_PLAYERS:
        raise ValueError(f"2^{n_players} masks are too many to write down")
    numbers = np.arange(1 << n_players, dtype=np.int64)
    return ((numbers[:, None] >> np.arange(n_players)) & 1).astype(np.bool_)


def exact_transform(values: Values) -> Spectrum:
    """Values of all 2^n masks, in the order of `all_masks` -> all 2^n coefficients.

    The fast Walsh-Hadamard transform: n 2^n additions, no rounding but theirs.
    Raises ValueError unless there are 2^n values.
    """
    size = values.shape[0] if values.ndim == 1 else 0
    n_players = size.bit_length() - 1
    if size < 1 or size != 1 << n_players or n_players > MAX_EXACT_PLAYERS:
        raise ValueError(f"{values.shape} values are not one for each of 2^n masks")
    out = np.array(values, dtype=np.float64)
    for bit in range(n_players):
        pairs = out.reshape(-1, 2, 1 << bit)
        out = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
    return ordered(n_players, np.arange(size, dtype=np.uint64)[:, None], out / size)
