"""Requests as data: one function for each thing that can be asked of the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from spex_proxy.facts.query import Noun, fields_of, unknown_fields
from spex_proxy.facts.records import (
    AggregateRecord,
    ComparisonRecord,
    EvidenceRecord,
    ExchangeRecord,
    ExplanationRecord,
    IndexRecord,
    JobRecord,
    VerificationRecord,
)

T = TypeVar("T")

BASE = "/spex/api/v1"
USUAL_S = 60.0
VERIFY_S = 600.0
EXPORT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and what its answer is."""

    method: str
    path: str
    kind: type[T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    may_repeat: bool = True
    """False where sending it twice is not the same as sending it once."""
    timeout_s: float = USUAL_S

    def with_param(self, name: str, value: Any) -> Call[T]:
        return replace(self, params={**self.params, name: value})


def params_of(**values: Any) -> dict[str, Any]:
    """What was given, as the API spells it."""
    return {name: _spell(value) for name, value in values.items() if value is not None and value != ()}


def _spell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    return list(value) if isinstance(value, tuple) else value


def path_of(*parts: str) -> str:
    return "/".join((BASE, *(quote(part, safe="") for part in parts)))


def listed(noun: Noun, kind: type[T], filters: Mapping[str, Any], project: str | None, **others: Any) -> Call[T]:
    """A list, or what else has the filters of one. Raises TypeError for a filter that it does not have."""
    unknown = unknown_fields(filters, noun)
    if unknown:
        known = ", ".join(f.name for f in fields_of(noun))
        raise TypeError(f"{noun} have no filter {', '.join(unknown)}; there is {known}")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in filters.items()}
    return Call("GET", path_of(noun), kind, params_of(**given, **others, project=project))


def exported(noun: Noun, filters: Mapping[str, Any], project: str | None) -> Call[Any]:
    return replace(listed(noun, object, filters, project), path=path_of(f"{noun}.jsonl"), timeout_s=EXPORT_S)


def indices(any_id: str, index: str, order: int, limit: int, project: str | None) -> Call[IndexRecord]:
    params = params_of(index=index, order=order, limit=limit, project=project)
    return Call("GET", path_of("explanations", any_id, "indices"), IndexRecord, params)


def compare(any_id: str, other: str, project: str | None) -> Call[ComparisonRecord]:
    params = params_of(other=other, project=project)
    return Call("GET", path_of("explanations", any_id, "compare"), ComparisonRecord, params)


def aggregates(filters: Mapping[str, Any], project: str | None, **others: Any) -> Call[AggregateRecord]:
    return replace(listed("explanations", AggregateRecord, filters, project, **others), path=path_of("aggregates"))


def exchange(any_id: str, project: str | None) -> Call[ExchangeRecord]:
    return Call("GET", path_of("exchanges", any_id), ExchangeRecord, params_of(project=project))


def explain(any_id: str, wish: Mapping[str, Any], key: str | None, project: str | None) -> Call[JobRecord]:
    """May be sent again without a key too: the server gives the job that the first one made."""
    body = {name: value for name, value in wish.items() if value is not None}
    headers = {"Idempotency-Key": key} if key else {}
    return Call("POST", path_of("exchanges", any_id, "explain"), JobRecord, params_of(project=project), body, headers)


def explanation(any_id: str, terms: bool, project: str | None) -> Call[ExplanationRecord]:
    params = params_of(terms=terms, project=project)
    return Call("GET", path_of("explanations", any_id), ExplanationRecord, params)


def evidence(any_id: str, project: str | None) -> Call[EvidenceRecord]:
    return Call("GET", path_of("explanations", any_id, "evidence"), EvidenceRecord, params_of(project=project))


def verify(any_id: str, project: str | None) -> Call[VerificationRecord]:
    path = path_of("explanations", any_id, "verify")
    return Call("POST", path, VerificationRecord, params_of(project=project), timeout_s=VERIFY_S)


def job(job_id: str, project: str | None) -> Call[JobRecord]:
    return Call("GET", path_of("jobs", job_id), JobRecord, params_of(project=project))


def change(job_id: str, change: str, project: str | None) -> Call[JobRecord]:
    """`cancel`, `pause` or `resume`."""
    return Call("POST", path_of("jobs", job_id, change), JobRecord, params_of(project=project), may_repeat=False)


def events(job_id: str, project: str | None) -> Call[JobRecord]:
    return Call("GET", path_of("jobs", job_id, "events"), JobRecord, params_of(project=project))
