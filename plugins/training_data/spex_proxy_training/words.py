"""Texts as numbers: words hashed into a fixed number of columns, the same on every machine."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def bag_of_words(texts: Sequence[str], buckets: int) -> NDArray[np.float64]:
    """Shape (texts, buckets): counts of words, lower case, by CRC-32, each row of length 1 (0 without words).

    The hashing trick (Weinberger et al. 2009, arXiv 0902.2206) without its signs. A matrix product with it is an
    embedding bag.
    """
    counts = np.zeros((len(texts), buckets))
    for row, text in enumerate(texts):
        for word in WORD.findall(text.lower()):
            counts[row, zlib.crc32(word.encode("utf-8")) % buckets] += 1.0
    length = np.sqrt((counts**2).sum(axis=1, keepdims=True))
    found: NDArray[np.float64] = counts / np.where(length > 0, length, 1.0)
    return found
