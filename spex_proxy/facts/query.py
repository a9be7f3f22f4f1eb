"""What one may look for: the filters of exchanges, explanations and interactions, defined once.

The store obeys them, the API, the command line and the pages offer them, the client sends them: each makes what
it needs (parameters, options, form fields) from the fields below and their metadata.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from spex_proxy.facts.explanation import Verdict
from spex_proxy.facts.origins import Origin

Noun = Literal["exchanges", "explanations", "interactions"]
"""What is listed."""
State = Literal[
    "captured", "queued", "running", "paused", "failed", "cancelled", "reliable", "unreliable", "nothing_to_explain"
]
"""A waiting or running job says more than what was found before it; then the newest explanation's verdict."""
Review = Literal["none", "open", "claimed", "done"]

STATES: tuple[State, ...] = get_args(State)
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
NOUNS: tuple[Noun, ...] = get_args(Noun)
_EXPLAINED: tuple[Noun, ...] = ("explanations", "interactions")


def _by(words: str, *, narrow: bool = False, of: tuple[Noun, ...] = NOUNS, **limits: Any) -> Any:
    """`narrow`: an index leads to what fits; `limits`: `ge`, `le`, `min_length`, `max_length`, `pattern`."""
    return {"help": words, "narrow": narrow, "of": of, "limits": limits}


_WORD: dict[str, Any] = {"min_length": 1, "max_length": 400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """All of what is said must fit; None or empty says nothing."""

    since: datetime | None = field(default=None, metadata=_by("At this moment or later.", narrow=True))
    until: datetime | None = field(default=None, metadata=_by("Before this moment.", narrow=True))
    model: str | None = field(default=None, metadata=_by("Exactly this model.", narrow=True, **_WORD))
    rule: str | None = field(default=None, metadata=_by("Decided by this sampling rule.", narrow=True, **_WORD))
    user: str | None = field(
        default=None, metadata=_by("Who asked, as the request says (`user`).", narrow=True, **_WORD)
    )
    tag: str | None = field(
        default=None, metadata=_by("`key=value` of the request's metadata.", narrow=True, pattern="^[^=]+=", **_WORD)
    )
    text: str | None = field(
        default=None,
        metadata=_by(
            'Words of prompt or answer, all of which must occur; `"a phrase"` in this order.', narrow=True, **_WORD
        ),
    )
    exchange: str | None = field(
        default=None,
        metadata=_by("Of this exchange; any id.", narrow=True, of=_EXPLAINED, min_length=1, max_length=200),
    )
    state: tuple[State, ...] = field(
        default=(), metadata=_by("What became of it: one of these; may be repeated.", narrow=True, of=("exchanges",))
    )
    verdict: tuple[Verdict, ...] = field(
        default=(), metadata=_by("The explanation's verdict: one of these; may be repeated.", narrow=True)
    )
    r2_min: float | None = field(
        default=None, metadata=_by("Out-of-fold R2 of the explanation, at least.", ge=-1e9, le=1.0)
    )
    r2_max: float | None = field(default=None, metadata=_by("At most.", ge=-1e9, le=1.0))
    flag: str | None = field(
        default=None, metadata=_by("Carries this flag.", narrow=True, min_length=1, max_length=200)
    )
    review: Review | None = field(
        default=None, metadata=_by("State of its case in any queue; `none`: nobody asked for a review.")
    )
    origin: Origin | None = field(
        default=None,
        metadata=_by("A text of this origin is in one of its strongest terms; with `order`, `strength`: in that one."),
    )
    top: int | None = field(
        default=None, metadata=_by("Look at so many of its strongest terms (all of at most 32).", ge=1, le=32)
    )
    order: int | None = field(
        default=None, metadata=_by("A term of exactly so many segments; 1 is a segment alone.", ge=1, le=64)
    )
    strength: float | None = field(
        default=None, metadata=_by("A term whose effect is at least so strong, either way.", ge=0.0, le=1e9)
    )

    def said(self) -> dict[str, Any]:
        """The fields that say something, in their order."""
        given = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in given if value is not None and value != ()}

    @property
    def seeks_terms(self) -> bool:
        return any(value is not None for value in (self.origin, self.top, self.order, self.strength))


def fields_of(noun: Noun) -> tuple[dataclasses.Field[Any], ...]:
    """The filters that a list of these has."""
    return tuple(f for f in dataclasses.fields(Query) if noun in f.metadata["of"])


def too_broad(query: Query, noun: Noun) -> str | None:
    """Why a query would read everything there is, and what to do; None if an index leads to what fits."""
    said = query.said()
    if not said or any(f.name in said and f.metadata["narrow"] for f in fields_of(noun)):
        return None
    narrow = ", ".join(f.name for f in fields_of(noun) if f.metadata["narrow"])
    return (
        f"{', '.join(said)} alone would mean reading every {noun.removesuffix('s')} there is, since no index leads "
        f"to what fits: give a time range too (since, until), or another of {narrow}"
    )


def unknown_fields(given: Mapping[str, Any], noun: Noun) -> list[str]:
    """Names that a list of these has no filter for."""
    known = {f.name for f in fields_of(noun)}
    return [name for name in given if name not in known]


def misplaced(given: Mapping[str, Any], noun: Noun) -> tuple[str, str] | None:
    """The first filter among `given` that only others have, and that in words: unsaid, it would seem to be obeyed.
    What is no filter at all is the caller's business."""
    others = {f.name: f.metadata["of"] for f in dataclasses.fields(Query)}
    for name in unknown_fields(given, noun):
        if name in others:
            return name, f"{noun} have no filter `{name}`; {' and '.join(others[name])} have it"
    return None
