"""A sheet: everything that a page shows of one explanation, in the order in which it is shown. Pure.

Templates only write down what is here. They compute nothing, so that what a person reads is tested
without a browser.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from spex_proxy.engine.conclude import RELIABLE_R2, Fit
from spex_proxy.engine.energy import energy
from spex_proxy.engine.rows import Rows
from spex_proxy.facts.exchange import MARK_ARROW, Exchange
from spex_proxy.facts.explanation import Explanation, Interaction
from spex_proxy.facts.game import Game
from spex_proxy.study import figures, words
from spex_proxy.study.coalitions import MOST_PLAYERS, Table, make_table
from spex_proxy.study.painted import FAINT_ERRORS, MessageSheet, SegmentSheet, is_dense, is_long, messages, paint
from spex_proxy.study.text import Piece, label, pieces, plain
from spex_proxy.study.view import View, make_view

MOST_ARCS = 12
"""More arcs than this are a hairball; all interactions are in the list."""
QUOTE = 240
"""Characters of the answer in the head of the page."""


@dataclass(frozen=True, slots=True)
class Row:
    """Players of one group, in a map of them all."""

    name: str
    cells: tuple[SegmentSheet, ...]


@dataclass(frozen=True, slots=True)
class Together:
    """Players that act together."""

    rank: int
    numbers: tuple[int, ...]
    labels: tuple[str, ...]
    effect: str
    step: int
    reading: str
    sentence: str
    error: str
    """±, in words; empty if unknown."""
    is_faint: bool
    table: Table | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """The whole page."""

    explanation: Explanation
    game: Game
    exchange: Exchange | None
    badge: str
    unit: str
    measured: str
    digits: int
    is_coloured: bool
    """False if there is nothing to explain: then nothing is coloured, ranked or joined."""
    is_muted: bool
    """True if the explanation is not reliable."""
    is_long: bool
    is_dense: bool
    """True if segments are words rather than sentences: then numbers stand only where there is an effect."""
    messages: tuple[MessageSheet, ...]
    answer: tuple[Piece, ...]
    quote: str
    """The beginning of the answer, on one line."""
    ranked: tuple[SegmentSheet, ...]
    together: tuple[Together, ...]
    strip: figures.Strip
    gauge: figures.Gauge
    near: str
    """How well prompts near the full one are predicted, in a sentence; empty if none was measured."""
    hierarchy: str
    """Whether interactions stand on their parts, in a sentence; and the rates behind it. Empty if nothing is joined."""
    hierarchy_rates: str
    error: float | None
    """Rough standard error of a segment's effect."""
    terms: words.Terms
    grid: tuple[Row, ...]
    """A game's players, group by group; empty for a request."""
    energy: tuple[tuple[str, str], ...]
    """(where, share in percent) of the variance over random coalitions; empty for a request."""
    items: tuple[str, ...]
    """What a game measured."""
    notes: tuple[str, ...]


def make_sheet(
    explanation: Explanation, game: Game, exchange: Exchange | None, rows: Rows | None, later: Rows | None = None
) -> Sheet:
    """Lay out an explanation. `rows` is the evidence that it cites, `later` all that its game has by now;
    without them there are no 2^k tables."""
    view = make_view(explanation, game, exchange)
    unit = view.unit
    is_coloured = explanation.verdict != "nothing_to_explain"
    largest = max((abs(segment.effect) for segment in view.segments), default=0.0)
    digits = words.digits_for(largest)
    error = typical_error(explanation)
    segments = paint(view, unit, digits, error, is_coloured)
    together = tuple(_together(explanation, view, (rows, later), unit, digits, error)) if is_coloured else ()
    fidelity, near = explanation.fidelity, explanation.how.get("near")
    return Sheet(
        explanation=explanation,
        game=game,
        exchange=exchange,
        badge=words.STATE_WORDS[explanation.verdict],
        unit=unit,
        measured=view.measured,
        digits=digits,
        is_coloured=is_coloured,
        is_muted=explanation.verdict == "unreliable",
        is_long=is_long(exchange),
        is_dense=is_dense(game.players.segments),
        messages=tuple(messages(view.passages, segments, exchange)),
        answer=pieces(exchange.output_text.strip("\n")) if exchange else (),
        quote=label(exchange.output_text, QUOTE) if exchange and exchange.output_text.strip() else "",
        ranked=tuple(segments[segment.number - 1] for segment in view.ranked) if is_coloured else (),
        together=together,
        strip=_strip(view, game, explanation, together, is_coloured),
        gauge=figures.make_gauge(fidelity.r2, fidelity.r2_low, fidelity.r2_high, RELIABLE_R2, fidelity.noise_ceiling),
        near=words.near_reading(near, unit, view.terms.full) if near and is_coloured else "",
        hierarchy=words.hierarchy_reading(view.hierarchy, view.terms.players) if is_coloured else "",
        hierarchy_rates=words.hierarchy_rates(view.hierarchy) if is_coloured else "",
        error=2.0 * error if error is not None else None,
        terms=view.terms,
        grid=tuple(_grid(view, segments)),
        energy=tuple(_energy(view)) if is_coloured else (),
        items=tuple(plain(item) for item in view.items),
        notes=view.notes,
    )


def _grid(view: View, segments: Sequence[SegmentSheet]) -> Iterator[Row]:
    """In the order in which the groups first appear."""
    for name in dict.fromkeys(view.groups):
        yield Row(plain(name), tuple(s for s, group in zip(segments, view.groups, strict=True) if group == name))


def _energy(view: View) -> Iterator[tuple[str, str]]:
    if not view.groups:
        return
    found = energy(view.explanation.spectrum, view.groups)
    yield "single players", f"{100 * found.linear:.0f}%"
    if len(set(view.groups)) > 1:
        yield "interactions within a group", f"{100 * found.within:.0f}%"
        yield "interactions across groups", f"{100 * found.across:.0f}%"
    else:
        yield "interactions", f"{100 * (found.within + found.across):.0f}%"


def typical_error(explanation: Explanation | Fit) -> float | None:
    """Rough standard error of a coefficient F(T) where the fit states none: what is left unexplained,
    spread over the masks. By Parseval the explained variance is the sum of the F(T)^2."""
    fidelity = explanation.fidelity
    explained = float((explanation.spectrum.coefficients[1:] ** 2).sum())
    if not (math.isfinite(fidelity.r2) and fidelity.r2 > 0 and fidelity.masks > 0):
        return None
    return math.sqrt(max(0.0, 1.0 - fidelity.r2) / fidelity.r2 * explained / fidelity.masks)


def _together(
    explanation: Explanation,
    view: View,
    rows: tuple[Rows | None, Rows | None],
    unit: str,
    digits: int,
    error: float | None,
) -> Iterator[Together]:
    joined = [term for term in explanation.interactions if term.order >= 2]
    largest = max((abs(term.banzhaf) for term in joined), default=0.0) or 1.0
    for rank, term in enumerate(joined):
        own = term.standard_error if term.standard_error is not None else error
        numbers = tuple(player + 1 for player in term.players)
        yield Together(
            rank=rank,
            numbers=numbers,
            labels=tuple(label(view.segments[player].text, 60) for player in term.players),
            effect=words.signed(term.banzhaf, digits),
            step=figures.step_of(max(figures.FAINTEST, abs(term.banzhaf) / largest) * (1 if term.banzhaf > 0 else -1)),
            reading=words.together_reading(term.banzhaf, term.order),
            sentence=words.together_sentence(term.banzhaf, numbers, unit, digits, view.terms.subject),
            error=f"±{FAINT_ERRORS * own * 2**term.order:.{digits}f}" if own is not None else "",
            is_faint=own is None or abs(term.fourier) < FAINT_ERRORS * own,
            table=_table(explanation, *rows, term),
        )


def _table(explanation: Explanation, rows: Rows | None, later: Rows | None, term: Interaction) -> Table | None:
    if rows is None or term.order > MOST_PLAYERS:
        return None
    return make_table(explanation.spectrum, rows, term.players, later)


def _strip(
    view: View, game: Game, explanation: Explanation, together: Sequence[Together], is_coloured: bool
) -> figures.Strip:
    terms = [term for term in explanation.interactions if term.order >= 2]
    largest = max((abs(term.banzhaf) for term in terms), default=0.0) or 1.0
    sure = [row.rank for row in together if not row.is_faint]
    groups = [(rank, terms[rank].players, terms[rank].banzhaf / largest) for rank in sure[:MOST_ARCS]]
    messages, first = [], 0
    names = view.groups or [segment.provenance.partition(MARK_ARROW)[0] for segment in game.players.segments]
    keys = view.groups or [segment.message for segment in game.players.segments]
    for _, group in groupby(range(len(names)), key=lambda player: keys[player]):
        mine = list(group)
        messages.append((plain(names[mine[0]]), first, first + len(mine) - 1))
        first += len(mine)
    strengths = [segment.strength if is_coloured else 0.0 for segment in view.segments]
    return figures.make_strip(strengths, groups, messages)
