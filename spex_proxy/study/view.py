"""An explanation as a person reads it: text, effects, words for the numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spex_proxy.engine.conclude import HIERARCHY_TERMS
from spex_proxy.engine.hierarchy import Hierarchy, hierarchy
from spex_proxy.engine.indices import banzhaf_values
from spex_proxy.facts.exchange import Exchange, Segment
from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.game import Game
from spex_proxy.study import words

VERDICTS = {
    "reliable": "reliable",
    "unreliable": "NOT RELIABLE",
    "nothing_to_explain": "nothing to explain",
}


@dataclass(frozen=True, slots=True)
class SegmentView:
    """One player: its number for people (from 1), its text, what keeping it adds."""

    number: int
    text: str
    provenance: str
    message: int
    effect: float
    """Banzhaf value: how much keeping the segment adds on average, in the value's unit."""
    strength: float
    """effect over the largest absolute effect: -1..1, for colours and bars."""

    def label(self, width: int = 48) -> str:
        line = " ".join(self.text.split()) or "(white space)"
        return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of one message: the text of a player, or text of no player, which was never masked."""

    message: int
    provenance: str
    text: str
    segment: SegmentView | None


@dataclass(frozen=True, slots=True)
class InteractionView:
    """Players that act together: what they add beyond their separate effects."""

    numbers: tuple[int, ...]
    labels: tuple[str, ...]
    effect: float
    """Banzhaf interaction index."""
    standard_error: float | None

    @property
    def reading(self) -> str:
        """What the sign means, in words."""
        return words.together_reading(self.effect, len(self.numbers))


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a page or a terminal shows of one explanation."""

    explanation: Explanation
    exchange: Exchange | None
    """None if the content was erased; then segments have no text."""
    segments: tuple[SegmentView, ...]
    passages: tuple[Passage, ...]
    """The whole prompt in order; only the players of it if the content was erased."""
    interactions: tuple[InteractionView, ...]
    hierarchy: Hierarchy
    """Of the strongest terms."""
    terms: words.Terms
    unit: str
    """Of the value; empty if unknown."""
    measured: str
    """What the value is, in words."""
    groups: tuple[str, ...]
    """Of a game's players, one for each; empty for a request."""
    items: tuple[str, ...]
    """What a game measured; empty for a request."""
    notes: tuple[str, ...] = ()
    """What of the prompt could not be masked, and why; what the values are, if no log-probabilities; of a game, what
    its plugin says to its readers."""

    @property
    def ranked(self) -> list[SegmentView]:
        """Segments, the strongest effect first."""
        return sorted(self.segments, key=lambda segment: (-abs(segment.effect), segment.number))

    @property
    def badge(self) -> str:
        return VERDICTS[self.explanation.verdict]


def make_view(explanation: Explanation, game: Game, exchange: Exchange | None) -> View:
    """Join numbers and text."""
    effects = banzhaf_values(explanation.spectrum)
    largest = max((abs(float(effect)) for effect in effects), default=0.0) or 1.0
    segments = tuple(
        SegmentView(
            number=number + 1,
            text=_text(segment, exchange),
            provenance=exchange.messages[segment.message].named(segment.provenance) if exchange else segment.provenance,
            message=segment.message,
            effect=float(effects[number]),
            strength=float(effects[number]) / largest,
        )
        for number, segment in enumerate(game.players.segments)
    )
    together = tuple(
        InteractionView(
            numbers=tuple(player + 1 for player in interaction.players),
            labels=tuple(segments[player].label(28) for player in interaction.players),
            effect=interaction.banzhaf,
            standard_error=interaction.standard_error,
        )
        for interaction in explanation.interactions
        if interaction.order >= 2
    )
    is_game = game.kind != "features" or (exchange is not None and exchange.kind == "game")
    rules = exchange.request["rules"] if exchange is not None and exchange.kind == "game" else {}
    return View(
        terms=words.GAME if is_game else words.REQUEST,
        unit=str(rules.get("unit", "" if is_game else words.unit_of(game))),
        groups=tuple(segment.provenance.partition(":")[2] for segment in segments) if is_game else (),
        items=tuple(exchange.output_text.split("\n")) if is_game and exchange else (),
        explanation=explanation,
        exchange=exchange,
        segments=segments,
        passages=tuple(_passages(game, segments, exchange)),
        interactions=together,
        hierarchy=hierarchy(explanation.spectrum, HIERARCHY_TERMS),
        notes=(*game.players.notes, *rules.get("notes", ())),
        measured="value" if is_game else words.measured(game),
    )


def _passages(game: Game, segments: tuple[SegmentView, ...], exchange: Exchange | None) -> Iterator[Passage]:
    if exchange is None:
        yield from (Passage(view.message, view.provenance, view.text, view) for view in segments)
        return
    for number, message in enumerate(exchange.messages):
        reached = 0
        for segment, view in zip(game.players.segments, segments, strict=True):
            if segment.message == number:
                if segment.char_start > reached:
                    between = message.text[reached : segment.char_start]
                    yield Passage(number, message.provenance, between, None)
                yield Passage(number, view.provenance, view.text, view)
                reached = segment.char_end
        if reached < len(message.text):
            yield Passage(number, message.provenance, message.text[reached:], None)


def _text(segment: Segment, exchange: Exchange | None) -> str:
    if exchange is None:
        return f"[erased: {segment.char_end - segment.char_start} characters]"
    return exchange.messages[segment.message].text[segment.char_start : segment.char_end]
