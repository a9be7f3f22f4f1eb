"""Requests as data: what can be asked about cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spex_proxy.client.calls import Call, params_of, path_of
from spex_proxy.facts.records import CasePage, CaseRecord, CaseStory, ReviewRecord


def review(project: str | None) -> Call[ReviewRecord]:
    return Call("GET", path_of("review"), ReviewRecord, params_of(project=project))


def cases(
    *,
    queue: str | None,
    state: Sequence[str],
    holder: str | None,
    label: str | None,
    exchange: str | None,
    page_size: int,
    project: str | None,
) -> Call[CasePage]:
    params = params_of(
        queue=queue, state=tuple(state), holder=holder, label=label, exchange=exchange, limit=page_size, project=project
    )
    return Call("GET", path_of("cases"), CasePage, params)


def case(case_id: str, project: str | None) -> Call[CaseStory]:
    return Call("GET", path_of("cases", case_id), CaseStory, params_of(project=project))


def open_case(any_id: str, given: Mapping[str, Any], project: str | None) -> Call[CaseRecord]:
    """May be sent again: an exchange is in a queue once."""
    return Call("POST", path_of("exchanges", any_id, "case"), CaseRecord, params_of(project=project), _said(given))


def next_case(given: Mapping[str, Any], project: str | None) -> Call[CaseRecord]:
    path = path_of("review", "next")
    return Call("POST", path, CaseRecord, params_of(project=project), _said(given), may_repeat=False)


def wish(case_id: str, wish: str, given: Mapping[str, Any], project: str | None) -> Call[CaseRecord]:
    """`claim`, `release`, `verdict`, `note` or `reopen`."""
    path = path_of("cases", case_id, wish)
    return Call("POST", path, CaseRecord, params_of(project=project), _said(given), may_repeat=False)


def _said(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
