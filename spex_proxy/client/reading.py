"""Bytes of answers -> records, errors and events. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from spex_proxy.client.calls import Call
from spex_proxy.facts.errors import (
    BadEvidence,
    BadReply,
    CannotExplain,
    NotFound,
    PluginError,
    SpexError,
    TooBroad,
    UpstreamBusy,
    UpstreamError,
    VerificationFailed,
)

T = TypeVar("T")

ERRORS: dict[str, type[SpexError]] = {
    "not_found": NotFound,
    "cannot_explain": CannotExplain,
    "damaged": VerificationFailed,
    "bad_evidence": BadEvidence,
    "plugin": PluginError,
    "store_unavailable": UpstreamBusy,
    "too_many_streams": UpstreamBusy,
    "busy": UpstreamBusy,
    "invalid_request": SpexError,
    "conflict": SpexError,
    "refused": SpexError,
    "too_broad": TooBroad,
    "bad_request": SpexError,
    "foreign_page": SpexError,
    "no_such_path": SpexError,
    "method_not_allowed": SpexError,
    "internal": UpstreamError,
}
"""The API's code -> the error that is raised. A test holds it against the codes that the server has."""

LONGEST_EVENT = 1 << 20
"""Characters. Ours have about a thousand; whoever sends more is not us."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, or why nothing did."""

    status: int
    """0 if there was no answer."""
    body: bytes
    retry_after_s: float | None = None
    failure: SpexError | None = None


def fault_of(reply: Reply, call: Call[Any]) -> SpexError | None:
    """The error that an answer means, with the server's own words; None if it means none."""
    if reply.failure is not None:
        return reply.failure
    if 200 <= reply.status < 300:
        return None
    asked = f"{call.method} {call.path}"
    try:
        fault = json.loads(reply.body)["error"]
        return ERRORS.get(fault["code"], SpexError)(fault["message"])
    except (ValueError, KeyError, TypeError):
        shown = reply.body[:200].decode("utf-8", "replace")
        if reply.status in (429, 502, 503, 504):
            return UpstreamBusy(f"{asked}: status {reply.status}, {shown!r}")
        return BadReply(f"{asked}: status {reply.status} in a form that is not spex-proxy's: {shown!r}")


def read(kind: type[T], body: bytes | str, asked: str) -> T:
    """Fields that this version doesn't know are left out; a text is taken as it is. Raises BadReply for what lacks
    a field, or is no JSON."""
    if kind is str:
        return body if isinstance(body, str) else body.decode("utf-8", "replace")  # type: ignore[return-value] # T is str
    try:
        return TypeAdapter(kind).validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise BadReply(f"{asked}: the answer is not what it should be, {where}: {first['msg']}") from error


class EventDecoder:
    """Server-sent events from chunks of any size; names and data only."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[tuple[str, str]]:
        """The events that are complete now. Raises BadReply for one that doesn't end."""
        *whole, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        if len(self._rest) > LONGEST_EVENT:
            raise BadReply("an event is longer than any of ours")
        return [event for block in whole if (event := _event(block)) is not None]


def _event(block: bytes) -> tuple[str, str] | None:
    name, data = "message", []
    for line in block.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition(":")
        if key == "event":
            name = value.removeprefix(" ")
        elif key == "data":
            data.append(value.removeprefix(" "))
    return (name, "\n".join(data)) if data else None


def retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After header; None for a date or nonsense."""
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
