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
from spex_proxy.facts.exchange import MARK_ARROW, Exchange, Segment
from spex_proxy.facts.explanation import Explanation, Interaction
from spex_proxy.facts.game import Game
from spex_proxy.study import figures, words
from spex_proxy.study.coalitions import MOST_PLAYERS, Table, make_table
from spex_proxy.study.text import Piece, label, pieces, plain
from spex_proxy.study.view import Passage, SegmentView, View, make_view

MOST_ARCS = 12
"""More arcs than this are a hairball; all interactions are in the list."""
FAINT_ERRORS = 2.0
"""Terms under so many standard errors may be noise, and are greyed."""
DENSE = 14
"""Characters of a typical segment under which a number at each one hides the text."""
QUOTE = 240
"""Characters of the answer in the head of the page."""
LONG_PROMPT = 6_000
"""Characters from which on the prompt scrolls in a frame of its own."""


@dataclass(frozen=True, slots=True)
class SegmentSheet:
    """One player, as it is shown in the text and in the ranking."""

    number: int
    provenance: str
    label: str
    effect: str
    sign: str
    step: int
    """-6..6: the step of colour."""
    reading: str
    is_faint: bool
    bar: figures.Bar


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a message: a player's, or nobody's."""

    pieces: tuple[Piece, ...]
    segment: SegmentSheet | None
    before: str = ""
    """White space that belongs to the player but is not painted."""
    after: str = ""


@dataclass(frozen=True, slots=True)
class MessageSheet:
    """One message of the prompt."""

    role: str
    name: str
    """Of the tool or participant, and which part; empty without one."""
    spans: tuple[Span, ...]


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
    segments = _segments(view, unit, digits, error, is_coloured)
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
        is_long=exchange is not None and sum(len(m.text) for m in exchange.messages) > LONG_PROMPT,
        is_dense=_is_dense(game.players.segments),
        messages=tuple(_messages(view.passages, segments, exchange)),
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


def unexplained(exchange: Exchange | None) -> tuple[MessageSheet, ...]:
    """The messages alone, while there is no explanation."""
    return tuple(_messages((), (), exchange)) if exchange is not None else ()


def typical_error(explanation: Explanation | Fit) -> float | None:
    """Rough standard error of a coefficient F(T) where the fit states none: what is left unexplained,
    spread over the masks. By Parseval the explained variance is the sum of the F(T)^2."""
    fidelity = explanation.fidelity
    explained = float((explanation.spectrum.coefficients[1:] ** 2).sum())
    if not (math.isfinite(fidelity.r2) and fidelity.r2 > 0 and fidelity.masks > 0):
        return None
    return math.sqrt(max(0.0, 1.0 - fidelity.r2) / fidelity.r2 * explained / fidelity.masks)


def _segments(view: View, unit: str, digits: int, error: float | None, is_coloured: bool) -> tuple[SegmentSheet, ...]:
    bars = figures.make_bars([s.effect for s in view.segments], 2.0 * FAINT_ERRORS * error if error else None)
    is_answer = not view.groups
    return tuple(
        _segment(s, bar, unit, digits, error, is_coloured, is_answer)
        for s, bar in zip(view.segments, bars, strict=True)
    )


def _segment(
    segment: SegmentView,
    bar: figures.Bar,
    unit: str,
    digits: int,
    error: float | None,
    is_coloured: bool,
    is_likelihood: bool,
) -> SegmentSheet:
    step = figures.step_of(segment.strength) if is_coloured else 0
    return SegmentSheet(
        number=segment.number,
        provenance=plain(segment.provenance),
        label=label(segment.text, 72),
        effect=words.signed(segment.effect, digits),
        sign="+" if step > 0 else words.MINUS if step < 0 else "",
        step=step,
        reading=words.effect_reading(segment.effect, unit, is_likelihood) if is_coloured else "",
        is_faint=error is None or abs(segment.effect) < 2.0 * FAINT_ERRORS * error,
        bar=bar,
    )


def _messages(
    passages: Sequence[Passage], segments: Sequence[SegmentSheet], exchange: Exchange | None
) -> Iterator[MessageSheet]:
    """The prompt, message by message. Without content: its players and how long they were."""
    by_message = {number: list(group) for number, group in groupby(passages, key=lambda passage: passage.message)}
    if exchange is None:
        for mine in by_message.values():
            role, _, name = mine[0].provenance.partition(":")
            yield MessageSheet(plain(role), plain(name), tuple(_span(p, segments, is_erased=True) for p in mine))
        return
    for number, message in enumerate(exchange.messages):
        # a text without explanation is one stretch of nobody's
        mine = by_message.get(number, [Passage(number, "", message.text, None)] if message.text else [])
        role, _, name = message.provenance.partition(":")
        yield MessageSheet(plain(role), plain(name), tuple(_span(passage, segments) for passage in mine))


def _span(passage: Passage, segments: Sequence[SegmentSheet], is_erased: bool = False) -> Span:
    segment = segments[passage.segment.number - 1] if passage.segment else None
    if is_erased:
        return Span((Piece(passage.text.strip("[]"), True, "the content was erased on request"),), segment)
    if segment is None:
        return Span(pieces(passage.text), None)
    text = passage.text.replace("\r\n", "\n")
    inner = text.strip(" \t\n") or text
    at = text.index(inner)
    return Span(pieces(inner), segment, text[:at], text[at + len(inner) :])


def _is_dense(places: Sequence[Segment]) -> bool:
    sizes = sorted(place.char_end - place.char_start for place in places)
    return bool(sizes) and sizes[len(sizes) // 2] < DENSE


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
