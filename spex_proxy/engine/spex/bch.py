"""Binary BCH codes: t errors in a word of 2^m - 1 bits are found and corrected.

Lin & Costello, Error Control Coding, chapter 6: generator polynomial (6.1), the
Berlekamp-Massey algorithm without divisions (Sarwate & Shanbhag 2001, "RiBM"'s
starting point), Chien's search. All over arrays: one row = one word.

The code is systematic and shortened: bits 0..p-1 are parities, bits p..p+n-1
the n players; the bits that would follow are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.spex.field import PRIMITIVE, Elements, Field, field

Bits = NDArray[np.bool_]

CHUNK_CELLS = 1 << 22
"""Most cells of Chien's search at once: 32 MiB of int64."""


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """Corrects t errors among p parities and n players."""

    field: Field
    t: int
    parity: Bits
    """Shape (p, n). Column i = the parities of the word that holds player i alone."""

    @property
    def n_players(self) -> int:
        return int(self.parity.shape[1])

    @property
    def p(self) -> int:
        return int(self.parity.shape[0])


def code(n_players: int, t: int) -> Code:
    """The smallest code for n players. Raises ValueError if none has a table."""
    for m in PRIMITIVE:
        generator = generator_polynomial(field(m), t)
        p = generator.bit_length() - 1
        if (1 << m) - 1 >= n_players + p:
            return Code(field(m), t, parities(generator, n_players))
    raise ValueError(f"no table holds a code of {n_players} players that corrects {t} errors")


def parity_count(n_players: int, t: int) -> int:
    """p of `code`, which need not be built for it."""
    for m in PRIMITIVE:
        cosets = {coset for j in range(1, 2 * t, 2) for coset in conjugates(j, m)}
        if (1 << m) - 1 >= n_players + len(cosets):
            return len(cosets)
    raise ValueError(f"no table holds a code of {n_players} players that corrects {t} errors")


def conjugates(j: int, m: int) -> list[int]:
    """Exponents of the roots of alpha^j's minimal polynomial: j, 2j, 4j, ... modulo 2^m - 1."""
    order, found = (1 << m) - 1, [j % ((1 << m) - 1)]
    while (found[-1] * 2) % order != found[0]:
        found.append((found[-1] * 2) % order)
    return found


def generator_polynomial(gf: Field, t: int) -> int:
    """The product of (x - r) over all conjugates r of alpha, alpha^3, ..., alpha^(2t-1); bit i = coefficient of x^i."""
    roots = sorted({e for j in range(1, 2 * t, 2) for e in conjugates(j, gf.m)})
    coefficients = np.ones(1, dtype=np.int64)
    for exponent in roots:
        shifted = np.concatenate([[0], coefficients])
        scaled = gf.multiply(np.concatenate([coefficients, [0]]), gf.power[exponent])
        coefficients = shifted ^ scaled
    return int(sum(int(c) << i for i, c in enumerate(coefficients)))


def parities(generator: int, n_players: int) -> Bits:
    """Shape (p, n). Column i = x^(p+i) modulo the generator."""
    p = generator.bit_length() - 1
    columns, rest = [], 1 << p
    for _ in range(n_players):
        rest = rest ^ generator if rest >> p else rest
        columns.append([(rest >> bit) & 1 for bit in range(p)])
        rest <<= 1
    return np.asarray(columns, dtype=np.bool_).reshape(n_players, p).T


def power_sums(this: Code, positions: Elements) -> Elements:
    """alpha^(j position) for j = 1..2t, shape (positions, 2t): what an error there adds to the syndromes."""
    exponents = positions[:, None] * np.arange(1, 2 * this.t + 1)
    sums: Elements = this.field.power[exponents % this.field.order]
    return sums


def syndromes(this: Code, words: Bits) -> Elements:
    """Parity bits (w, p), players unknown and taken as 0 -> syndromes (w, 2t)."""
    sums = power_sums(this, np.arange(this.p))
    odd = np.zeros((len(words), 2 * this.t), dtype=np.int64)
    for position in range(this.p):
        odd ^= np.where(words[:, position, None], sums[position], 0)
    return odd


def locators(this: Code, found: Elements) -> Elements:
    """Berlekamp-Massey: syndromes (w, 2t) -> error locator polynomials (w, 2t + 1), up to a factor.

    Of a binary code every second discrepancy is 0 (S_2j = S_j^2), so two steps are done in one.
    """
    gf, width = this.field, 2 * this.t + 1
    locator = np.zeros((len(found), width), dtype=np.int64)
    locator[:, 0] = 1
    before, factor = locator.copy(), np.ones(len(found), dtype=np.int64)
    balance = np.zeros(len(found), dtype=np.int64)
    for step in range(0, 2 * this.t, 2):
        terms = gf.multiply(locator[:, : step + 1], found[:, step::-1] if step else found[:, :1])
        discrepancy = np.bitwise_xor.reduce(terms, axis=1)
        shifted = np.concatenate([np.zeros((len(found), 1), dtype=np.int64), before[:, :-1]], axis=1)
        longer = (discrepancy != 0) & (balance >= 0)
        updated = gf.multiply(locator, factor[:, None]) ^ gf.multiply(shifted, discrepancy[:, None])
        before = np.where(longer[:, None], locator, shifted)
        factor = np.where(longer, discrepancy, factor)
        balance = np.where(longer, -balance, balance + 2)
        locator = updated
        before = np.concatenate([np.zeros((len(found), 1), dtype=np.int64), before[:, :-1]], axis=1)
    return locator


def roots(this: Code, locator: Elements) -> Bits:
    """Chien's search: (w, p + n), True where alpha^-position is a root of the locator (w, t + 1)."""
    gf, length = this.field, this.p + this.n_players
    out = np.empty((len(locator), length), dtype=np.bool_)
    backwards = -np.arange(length) % gf.order
    step = max(1, CHUNK_CELLS // length)
    for start in range(0, len(locator), step):
        rows = locator[start : start + step]
        total = np.repeat(rows[:, :1], length, axis=1)
        for degree in range(1, rows.shape[1]):
            used = np.flatnonzero(rows[:, degree])
            exponents = (degree * backwards) % gf.order
            total[used] ^= gf.power[gf.log[rows[used, degree]][:, None] + exponents]
        out[start : start + step] = total == 0
    return out


def decode(this: Code, found: Elements) -> tuple[Bits, NDArray[np.bool_]]:
    """Syndromes (w, 2t) -> errors (w, p + n), and whether at most t errors explain the syndromes (w,).

    Where they do, the errors' own syndromes are the given ones: that is checked, not assumed. Other rows are all False.
    """
    locator = locators(this, found)
    degree = np.max(np.where(locator != 0, np.arange(locator.shape[1]), 0), axis=1)
    likely = np.flatnonzero((degree <= this.t) & (locator[:, 0] != 0))
    errors = np.zeros((len(found), this.p + this.n_players), dtype=np.bool_)
    at = roots(this, locator[likely, : this.t + 1])
    good = at.sum(axis=1) == degree[likely]
    errors[likely[good]] = at[good]
    row, position = np.nonzero(errors)
    again = np.zeros_like(found)
    np.bitwise_xor.at(again, row, power_sums(this, position))
    correct = np.zeros(len(found), dtype=np.bool_)
    correct[likely[good]] = True
    correct &= (again == found).all(axis=1)
    errors[~correct] = False
    return errors, correct
