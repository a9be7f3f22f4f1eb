"""What a spectrum says about players and groups of players.

Formulas: after ProxySPEX (arXiv 2505.17495), A.1. F is the Fourier
coefficient, M the Moebius (Harsanyi) coefficient of v over sets of PRESENT players.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.walsh import CHUNK_CELLS, Coefficients, Supports, truncate
from spex_proxy.facts.explanation import Interaction
from spex_proxy.facts.spectrum import Spectrum, unpack_supports


def sizes(supports: Supports) -> NDArray[np.int64]:
    """Shape (terms,). How many players each set has."""
    counts: NDArray[np.int64] = np.bitwise_count(supports).sum(axis=1, dtype=np.int64)
    return counts


def sum_over_supersets(of: Supports, supports: Supports, numbers: Coefficients) -> Coefficients:
    """For each set T of `of`: the sum of `numbers` over those `supports` that contain T. Shape (t,)."""
    out = np.empty(of.shape[0], dtype=np.float64)
    step = max(1, CHUNK_CELLS // max(1, supports.shape[0]))
    for start in range(0, of.shape[0], step):
        part = of[start : start + step]
        inside = np.ones((part.shape[0], supports.shape[0]), dtype=np.bool_)
        for word in range(supports.shape[1]):
            inside &= (part[:, word, None] & ~supports[None, :, word]) == 0
        out[start : start + step] = inside @ numbers
    return out


def moebius(spectrum: Spectrum, of: Supports) -> Coefficients:
    """M(T) = (-2)^|T| sum_{S >= T} F(S) for each set of `of`, shape (t,)."""
    return (-2.0) ** sizes(of) * sum_over_supersets(of, spectrum.supports, spectrum.coefficients)


def fourier_of_moebius(supports: Supports, coefficients: Coefficients, of: Supports) -> Coefficients:
    """F(T) = (-1)^|T| sum_{S >= T} M(S) / 2^|S| for each set of `of`, shape (t,)."""
    return (-1.0) ** sizes(of) * sum_over_supersets(of, supports, coefficients / 2.0 ** sizes(supports))


def banzhaf_interactions(spectrum: Spectrum) -> Coefficients:
    """BII(T) = (-2)^|T| F(T) for each term, shape (terms,).

    For one player: how much keeping it adds, on average over what else is kept.
    """
    return (-2.0) ** sizes(spectrum.supports) * spectrum.coefficients


def banzhaf_values(spectrum: Spectrum) -> NDArray[np.float64]:
    """BV_i = -2 F({i}), shape (n,); 0 for a player without a term of its own."""
    out = np.zeros(spectrum.n_players)
    single = spectrum.orders() == 1
    players = [term[0] for term in unpack_supports(spectrum.supports[single], spectrum.n_players)]
    out[players] = -2.0 * spectrum.coefficients[single]
    return out


def rank_interactions(spectrum: Spectrum, limit: int = 32) -> tuple[Interaction, ...]:
    """The strongest terms, the constant left out, at most `limit`; equal ones in canonical order.

    Ranked by |F|, not by |Banzhaf|: F(T)^2 is the share of the value's variance
    over masks that T explains (Parseval), the same scale for every order, while
    Banzhaf's factor 2^|T| would lift the noise of high orders above everything.
    """
    if limit < 0:
        raise ValueError(f"can't rank {limit} interactions")
    top = truncate(spectrum, limit)
    order = 1 + np.argsort(-np.abs(top.coefficients[1:]), kind="stable")
    players, banzhaf, harsanyi = top.players(), banzhaf_interactions(top), moebius(spectrum, top.supports)
    errors = top.standard_errors
    return tuple(
        Interaction(
            players[i],
            float(top.coefficients[i]),
            float(banzhaf[i]),
            float(harsanyi[i]),
            None if errors is None else float(errors[i]),
        )
        for i in order
    )
