"""The way over to shapiq (https://github.com/mmschlk/shapiq), which is not installed with spex_proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spex_proxy.library.terms import Indices

if TYPE_CHECKING:
    from shapiq import InteractionValues

NAMES = {
    "sv": "SV", "bv": "BV", "sii": "SII", "bii": "BII", "k-sii": "k-SII", "stii": "STII", "fsii": "FSII",
    "fbii": "FBII", "moebius": "Moebius",
}  # fmt: skip
"""Our names of indices, and shapiq's."""


def values(found: Indices, n_players: int, asked: int, baseline: float, is_estimated: bool) -> InteractionValues:
    """The same numbers as shapiq's object. Raises ImportError, saying what to install, without shapiq."""
    try:
        import shapiq  # noqa: PLC0415 - heavy, and nobody else's business
    except ImportError as error:
        raise ImportError('to_shapiq() needs shapiq: pip install "spex-proxy[shapiq]"') from error
    return shapiq.InteractionValues(
        values=found.numbers.copy(),
        index=NAMES[found.name],
        max_order=found.order,
        min_order=0,
        n_players=n_players,
        interaction_lookup={players: number for number, players in enumerate(found.sets)},
        estimated=is_estimated,
        estimation_budget=asked,
        baseline_value=baseline,
    )
