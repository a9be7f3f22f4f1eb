"""A board: what a page or a picture shows of any explained function, its players known by name alone. Pure.

Players carry their columns of the masks as numbers, from 0, because that is how a program knows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spex_proxy.engine.conclude import HIERARCHY_TERMS, RELIABLE_R2, Fit
from spex_proxy.engine.hierarchy import hierarchy
from spex_proxy.engine.indices import banzhaf_values, rank_interactions
from spex_proxy.engine.rows import Rows
from spex_proxy.facts.explanation import Interaction
from spex_proxy.facts.recipe import Recipe
from spex_proxy.study import figures, words
from spex_proxy.study.coalitions import MOST_PLAYERS, make_table
from spex_proxy.study.painted import FAINT_ERRORS, SegmentSheet
from spex_proxy.study.sheet import MOST_ARCS, Together, typical_error
from spex_proxy.study.text import label

MOST_GROUPS = 24
"""Of those that act together, the strongest."""


@dataclass(frozen=True, slots=True)
class Board:
    """The whole page."""

    fit: Fit
    recipe: Recipe
    badge: str
    terms: words.Terms
    unit: str
    digits: int
    is_coloured: bool
    """False if there is nothing to explain."""
    is_muted: bool
    """True if the explanation is not reliable."""
    players: tuple[SegmentSheet, ...]
    """In the order of the masks' columns."""
    ranked: tuple[SegmentSheet, ...]
    """The strongest effect first."""
    together: tuple[Together, ...]
    strip: figures.Strip
    gauge: figures.Gauge
    near: str
    """How well masks near the full one are predicted, in a sentence; empty if none was measured."""
    hierarchy: str
    hierarchy_rates: str
    error: float | None
    """Rough standard error of a player's effect."""
    names: tuple[str, ...]


def make_board(names: Sequence[str], fit: Fit, recipe: Recipe, rows: Rows, unit: str = "") -> Board:
    """Lay out a fit over players of these names."""
    effects = banzhaf_values(fit.spectrum)
    is_coloured = fit.verdict != "nothing_to_explain"
    largest = float(np.abs(effects).max(initial=0.0))
    digits = words.digits_for(largest)
    error = typical_error(fit)
    players = tuple(_players(names, effects.tolist(), largest, digits, error, unit if is_coloured else None))
    terms = rank_interactions(fit.spectrum, len(fit.spectrum)) if is_coloured else ()
    joined = [term for term in terms if term.order >= 2][:MOST_GROUPS]
    together = tuple(_together(fit, rows, joined, names, unit, digits, error))
    near, found = fit.how.get("near"), hierarchy(fit.spectrum, HIERARCHY_TERMS)
    figures_of = fit.fidelity
    return Board(
        fit=fit,
        recipe=recipe,
        badge=words.STATE_WORDS[fit.verdict],
        terms=words.GAME,
        unit=unit,
        digits=digits,
        is_coloured=is_coloured,
        is_muted=fit.verdict == "unreliable",
        players=players,
        ranked=tuple(sorted(players, key=lambda one: (-abs(float(effects[one.number])), one.number))),
        together=together,
        strip=_strip(effects.tolist(), largest, joined, together, is_coloured),
        gauge=figures.make_gauge(
            figures_of.r2, figures_of.r2_low, figures_of.r2_high, RELIABLE_R2, figures_of.noise_ceiling
        ),
        near=words.near_reading(near, unit, "full mask") if near and is_coloured else "",
        hierarchy=words.hierarchy_reading(found, "players") if is_coloured else "",
        hierarchy_rates=words.hierarchy_rates(found) if is_coloured else "",
        error=2.0 * error if error is not None else None,
        names=tuple(names),
    )


def _players(
    names: Sequence[str],
    effects: Sequence[float],
    largest: float,
    digits: int,
    error: float | None,
    unit: str | None,
) -> Iterator[SegmentSheet]:
    """`unit`: None if nothing is to be coloured."""
    bars = figures.make_bars(effects, 2.0 * FAINT_ERRORS * error if error else None)
    for number, (name, effect, bar) in enumerate(zip(names, effects, bars, strict=True)):
        step = figures.step_of(effect / largest) if largest > 0 and unit is not None else 0
        yield SegmentSheet(
            number=number,
            provenance="",
            label=label(name, 72),
            effect=words.signed(effect, digits),
            sign="+" if step > 0 else words.MINUS if step < 0 else "",
            step=step,
            reading=words.effect_reading(effect, "") if unit is not None else "",
            is_faint=error is None or abs(effect) < 2.0 * FAINT_ERRORS * error,
            bar=bar,
        )


def _together(
    fit: Fit,
    rows: Rows,
    joined: Sequence[Interaction],
    names: Sequence[str],
    unit: str,
    digits: int,
    error: float | None,
) -> Iterator[Together]:
    largest = max((abs(term.banzhaf) for term in joined), default=0.0) or 1.0
    for rank, term in enumerate(joined):
        own = term.standard_error if term.standard_error is not None else error
        yield Together(
            rank=rank,
            numbers=term.players,
            labels=tuple(label(names[player], 60) for player in term.players),
            effect=words.signed(term.banzhaf, digits),
            step=figures.step_of(max(figures.FAINTEST, abs(term.banzhaf) / largest) * (1 if term.banzhaf > 0 else -1)),
            reading=words.together_reading(term.banzhaf, term.order),
            sentence=words.together_sentence(term.banzhaf, term.players, unit, digits, "the value"),
            error=f"±{FAINT_ERRORS * own * 2**term.order:.{digits}f}" if own is not None else "",
            is_faint=own is None or abs(term.fourier) < FAINT_ERRORS * own,
            table=make_table(fit.spectrum, rows, term.players) if term.order <= MOST_PLAYERS else None,
        )


def _strip(
    effects: Sequence[float],
    largest: float,
    joined: Sequence[Interaction],
    together: Sequence[Together],
    is_coloured: bool,
) -> figures.Strip:
    most = max((abs(term.banzhaf) for term in joined), default=0.0) or 1.0
    sure = [row.rank for row in together if not row.is_faint][:MOST_ARCS]
    groups = [(rank, joined[rank].players, joined[rank].banzhaf / most) for rank in sure]
    strengths = [effect / largest if is_coloured and largest > 0 else 0.0 for effect in effects]
    drawn = figures.make_strip(strengths, groups, [])
    return replace(drawn, nodes=tuple(replace(node, number=node.number - 1) for node in drawn.nodes))
