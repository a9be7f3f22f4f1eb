"""Requests as data: tables of chosen segments, re-tests, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spex_proxy.client.calls import Call, params_of, path_of
from spex_proxy.facts.records import CoalitionTable, RetestList, RetestRecord


def coalitions(any_id: str, segments: Sequence[int], project: str | None) -> Call[CoalitionTable]:
    params = params_of(segment=tuple(segments), project=project)
    return Call("GET", path_of("explanations", any_id, "coalitions"), CoalitionTable, params)


def ask_coalitions(any_id: str, segments: Sequence[int], project: str | None) -> Call[CoalitionTable]:
    """May be sent again: what is being asked already is not asked twice."""
    body = {"segments": list(segments)}
    path = path_of("explanations", any_id, "coalitions")
    return Call("POST", path, CoalitionTable, params_of(project=project), body)


def retest(any_id: str, given: Mapping[str, Any], project: str | None) -> Call[RetestRecord]:
    """May be sent again as long as the first is not answered."""
    body = {
        name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value is not None
    }
    path = path_of("explanations", any_id, "retest")
    return Call("POST", path, RetestRecord, params_of(project=project), body, may_repeat=False)


def one_retest(retest_id: str, project: str | None) -> Call[RetestRecord]:
    return Call("GET", path_of("retests", retest_id), RetestRecord, params_of(project=project))


def retests(any_id: str, project: str | None) -> Call[RetestList]:
    return Call("GET", path_of("exchanges", any_id, "retests"), RetestList, params_of(project=project))


def report(any_id: str, project: str | None) -> Call[str]:
    return Call("GET", path_of("exchanges", any_id, "report.html"), str, params_of(project=project))
