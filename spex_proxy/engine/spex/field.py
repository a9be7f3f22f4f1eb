"""Arithmetic in GF(2^m) by tables of powers and logarithms (Lin & Costello, Error Control Coding, chapter 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Elements = NDArray[np.int64]
"""Field elements: bit i of the number is the coefficient of x^i."""

PRIMITIVE = {
    3: 0b1011,
    4: 0b1_0011,
    5: 0b10_0101,
    6: 0b100_0011,
    7: 0b1000_1001,
    8: 0b1_0001_1101,
    9: 0b10_0001_0001,
    10: 0b100_0000_1001,
    11: 0b1000_0000_0101,
}
"""m -> a primitive polynomial of degree m: x generates every element but 0 (Lin & Costello, table 2.7)."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """GF(2^m). alpha = x is a primitive element."""

    m: int
    power: Elements
    """Shape (2 (2^m - 1),). alpha^i; twice round, so that the sum of two logarithms is an index."""
    log: Elements
    """Shape (2^m,). log[alpha^i] = i; log[0] is meaningless."""

    @property
    def order(self) -> int:
        """2^m - 1: how many elements are not 0, and the length of the code."""
        return (1 << self.m) - 1

    def multiply(self, a: Elements, b: Elements) -> Elements:
        """Elementwise product, broadcast."""
        product: Elements = np.where((a == 0) | (b == 0), 0, self.power[self.log[a] + self.log[b]])
        return product


def field(m: int) -> Field:
    """Raises ValueError for an m without a table."""
    if m not in PRIMITIVE:
        raise ValueError(f"there is no table of GF(2^{m}); m is {min(PRIMITIVE)} to {max(PRIMITIVE)}")
    order, element = (1 << m) - 1, 1
    power, log = np.empty(2 * order, dtype=np.int64), np.zeros(1 << m, dtype=np.int64)
    for i in range(order):
        power[i], log[element] = element, i
        element <<= 1
        if element >> m:
            element ^= PRIMITIVE[m]
    power[order:] = power[:order]
    return Field(m, power, log)
