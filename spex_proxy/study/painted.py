"""The prompt as it is shown: each message with its players in it, painted by what they do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from spex_proxy.facts.exchange import Exchange, Segment
from spex_proxy.study import figures, words
from spex_proxy.study.text import Piece, label, pieces, plain
from spex_proxy.study.view import Passage, SegmentView, View

FAINT_ERRORS = 2.0
"""Terms under so many standard errors may be noise, and are greyed."""
DENSE = 14
"""Characters of a typical segment under which a number at each one hides the text."""
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


def is_long(exchange: Exchange | None) -> bool:
    return exchange is not None and sum(len(message.text) for message in exchange.messages) > LONG_PROMPT


def is_dense(places: Sequence[Segment]) -> bool:
    """True if segments are words rather than sentences."""
    sizes = sorted(place.char_end - place.char_start for place in places)
    return bool(sizes) and sizes[len(sizes) // 2] < DENSE


def unexplained(exchange: Exchange | None) -> tuple[MessageSheet, ...]:
    """The messages alone, while there is no explanation."""
    return tuple(messages((), (), exchange)) if exchange is not None else ()


def paint(view: View, unit: str, digits: int, error: float | None, is_coloured: bool) -> tuple[SegmentSheet, ...]:
    """All players by their numbers. `error`: the typical standard error of a coefficient."""
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


def messages(
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
