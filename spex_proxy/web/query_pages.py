"""The pages of questions over many explanations: a dashboard of shares, and two explanations side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response

from spex_proxy.engine.estimate import Estimate
from spex_proxy.facts.errors import TooBroad
from spex_proxy.facts.origins import Origin
from spex_proxy.store.population import GROUPINGS, USUAL_DEPTH, Population, population
from spex_proxy.web import forms
from spex_proxy.web.api_query import load_comparison
from spex_proxy.web.query_replies import notes_of

USUAL_RANGE = "7d"
ORIGIN_WORDS: dict[Origin, str] = {
    "system": "the system prompt", "developer": "a developer message", "user": "a user message",
    "assistant": "an earlier answer", "tool": "a tool result", "function": "a function result",
    "tool_definition": "a tool definition", "tool_call": "an earlier tool call", "document": "a document in a message",
    "prompt": "the prompt", "other": "a message of another role",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShareBar:
    """A share as a bar from 0 to 100, with its interval."""

    words: str
    kind: str
    value: float
    low: float
    high: float
    n: int

    @property
    def said(self) -> str:
        return f"{self.value:.0f}%, 95% interval {self.low:.0f}% to {self.high:.0f}%"


class QueryPages:
    """The handlers. `read(function, ...)` opens the store, `show(template, status, **values)` renders."""

    def __init__(self, read: Callable[..., Any], show: Callable[..., Response], project: str) -> None:
        self._read, self._show, self._project = read, show, project

    def dashboard(self, request: Request) -> Response:
        asked = {name: value for name, value in request.query_params.items() if value}
        if not asked.keys() & {"range", "since"}:
            asked["range"] = USUAL_RANGE
        query, trouble = forms.understood(asked, "explanations", datetime.now(UTC))
        by = asked.get("by") if asked.get("by") in GROUPINGS else None
        found: Population | None = None
        if not trouble:
            try:
                found = self._read(
                    population, self._project, query, document=asked.get("document"), by=by, depth=USUAL_DEPTH
                )
            except (TooBroad, ValueError) as error:
                trouble = str(error)
        return self._show(
            "dashboard.html",
            asked=asked,
            by=by,
            groupings=GROUPINGS,
            ranges=forms.RANGES,
            trouble=trouble,
            found=found,
            notes=notes_of(found) if found else (),
            verdicts=[_bar(v.replace("_", " "), v, e) for v, e in found.whole.verdicts.items() if e.n] if found else [],
            origins=origin_bars(found) if found else [],
            groups=[(name, *_row(shares)) for name, shares in found.groups.items()] if found else [],
        )

    def compare(self, request: Request) -> Response:
        first, second = (request.query_params.get(name, "").strip()[:200] for name in ("a", "b"))
        found = self._read(load_comparison, first, second, self._project) if first and second else None
        return self._show("compare.html", first=first, second=second, found=found, scale=_scale(found))


def origin_bars(found: Population) -> list[ShareBar]:
    """The largest share first; what was asked for by its words, before all."""
    bars = [_bar(ORIGIN_WORDS[o], "origin", e) for o, e in found.whole.origins.items() if e.n]
    bars.sort(key=lambda bar: -bar.value)
    document = found.whole.document
    return ([_bar("the document", "document", document)] if document and document.n else []) + bars


def _bar(words: str, kind: str, found: Estimate) -> ShareBar:
    value, low, high = (round(100 * part, 2) for part in (found.value, found.low, found.high))
    return ShareBar(words, kind, value, low, high, found.n)


def _row(shares: Any) -> tuple[Estimate, ShareBar | None, Estimate]:
    reliable = shares.verdicts["reliable"]
    return shares.requests, _bar("reliable", "reliable", reliable) if reliable.n else None, shares.r2


def _scale(found: Any) -> float:
    """The largest effect of either: the length of the longest bar."""
    if found is None:
        return 1.0
    effects = [abs(s.effect) for pair in found.pairs for s in (pair.first, pair.second) if s]
    return max(effects, default=0.0) or 1.0
