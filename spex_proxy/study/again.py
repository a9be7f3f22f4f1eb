"""A re-test as a page shows it: what was left out, what the model said then, what that means. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from spex_proxy.facts.exchange import Exchange
from spex_proxy.facts.game import Game
from spex_proxy.facts.records import FINAL_STATES
from spex_proxy.facts.retest import Outcome, Retest
from spex_proxy.store.retests import RetestStory
from spex_proxy.study.text import Piece, label, pieces

SHOWN = 6_000
"""Characters of an answer that a page shows; the API has all of it."""

HEADLINES = {
    "same": "Nothing changes without {it}",
    "changed": "The answer changes without {it}",
    "silent": "Nothing is said without {it}",
}
WAITING = {
    "queued": "Waits for the model",
    "running": "The model is being asked",
    "paused": "Paused",
    "failed": "The model could not be asked",
    "cancelled": "Cancelled",
}


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, beside the others."""

    title: str
    note: str
    text: tuple[Piece, ...]
    is_empty: bool
    left_out: int
    """Characters that are not shown."""


@dataclass(frozen=True, slots=True)
class RetestSheet:
    """One re-test."""

    retest: Retest
    state: str
    is_live: bool
    reason: str
    numbers: tuple[int, ...]
    """What was left out, from 1."""
    labels: tuple[str, ...]
    headline: str
    sentence: str
    tone: str
    """`changed`, `same` or `open`: how it is painted."""
    said: tuple[Said, ...]
    """The stored answer, the control, the answer without the segments; empty until there is one, and once erased."""
    is_erased: bool


def make_retest_sheet(told: RetestStory, game: Game, exchange: Exchange | None, original: str) -> RetestSheet:
    """`original`: the stored answer as one text, tool calls included; unused once the content is erased."""
    retest, outcome = told.retest, told.retest.outcome
    numbers = tuple(player + 1 for player in retest.players)
    said: tuple[Said, ...] = ()
    if exchange is not None and told.answers is not None:
        said = (
            _said("As it was answered", "stored when it passed", original),
            _said("Whole prompt, asked again", "temperature 0: the control", told.answers.control.text),
            _said(f"Without {named(numbers)}", "temperature 0", told.answers.removed.text),
        )
    return RetestSheet(
        retest=retest,
        state=told.state,
        is_live=told.state not in FINAL_STATES,
        reason=told.reason or "",
        numbers=numbers,
        labels=tuple(_label(game, exchange, player) for player in retest.players),
        headline=_headline(outcome, "it" if len(numbers) == 1 else "them")
        if outcome
        else WAITING.get(told.state, "Done"),
        sentence=sentence_of(outcome, numbers) if outcome else "",
        tone="open" if outcome is None else "same" if outcome.finding == "same" else "changed",
        said=said,
        is_erased=outcome is not None and not said,
    )


def named(numbers: tuple[int, ...]) -> str:
    """`segment 3`, `segments 3 and 5`, `segments 1, 3 and 5`."""
    if len(numbers) == 1:
        return f"segment {numbers[0]}"
    return f"segments {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def sentence_of(outcome: Outcome, numbers: tuple[int, ...]) -> str:
    """What a re-test found, for people."""
    what = named(numbers)
    found = {
        "same": f"Without {what} the model answers word for word the same, so they do not decide this answer."
        if len(numbers) > 1
        else f"Without {what} the model answers word for word the same, so it does not decide this answer.",
        "changed": f"Without {what} the model answers otherwise: {outcome.overlap:.0%} of the words are the same.",
        "silent": f"Without {what} the model gives an answer without any text.",
    }[outcome.finding]
    control = (
        "With the whole prompt it repeats the stored answer word for word."
        if outcome.is_reproduced
        else "Caution: with the whole prompt at temperature 0 it does not repeat the stored answer either "
        f"({outcome.control_overlap:.0%} of the words are the same), so compare the two new answers with each other."
    )
    return " ".join(part for part in (found, _flags(outcome), control) if part)


def _flags(outcome: Outcome) -> str:
    if not outcome.flags:
        return ""
    names = ", ".join(flag.name for flag in outcome.flags)
    if outcome.is_gone is None:
        return f"The whole prompt no longer raises what was flagged ({names}), so this says nothing about it."
    left = ", ".join(flag.name for flag in outcome.flags if flag.control and flag.removed)
    return f"What was flagged ({names}) is gone." if outcome.is_gone else f"What was flagged is still there ({left})."


def _headline(outcome: Outcome, it: str) -> str:
    if outcome.is_gone:
        return f"What was flagged is gone without {it}"
    return (
        f"What was flagged stays without {it}" if outcome.is_gone is False else HEADLINES[outcome.finding].format(it=it)
    )


def _said(title: str, note: str, text: str) -> Said:
    text = text.strip()
    return Said(title, note, pieces(text[:SHOWN]), not text.strip(), max(0, len(text) - SHOWN))


def _label(game: Game, exchange: Exchange | None, player: int) -> str:
    segment = game.players.segments[player]
    if exchange is None:
        return f"erased: {segment.char_end - segment.char_start} characters"
    return label(exchange.messages[segment.message].text[segment.char_start : segment.char_end], 90)
