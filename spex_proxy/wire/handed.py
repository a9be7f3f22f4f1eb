"""What the capture middleware of spex-proxy-vllm hands over, read strictly: it comes over a network. Pure.

One line of JSON, the request's bytes, the answer's bytes. `plugins/vllm_engine/golden/handover.json` holds one, which
both test suites compare with.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.exchange import Headers, RequestHead
from spex_proxy.wire.tap import Ending

PROTOCOL = 1
LOSSES = frozenset({"memory_full", "too_large", "refused", "shutdown", "fault"})
"""Why the middleware may have lost something."""
HEAD_BYTES = 1 << 17
"""Longest first line."""
FIELDS = frozenset(
    {
        "protocol", "id", "method", "path", "received_at", "headers", "status", "response_headers", "first_byte_s",
        "duration_s", "ending", "request_bytes", "lost",
    }
)  # fmt: skip
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Handed:
    """An exchange that passed elsewhere, as bytes."""

    head: RequestHead
    request_body: bytes
    status: int
    response_headers: Headers
    answer: bytes
    first_byte_s: float
    duration_s: float
    ending: Ending
    lost: Mapping[str, int]
    """What was lost on the other side since the last time, by reason."""


def read_handed(payload: bytes) -> Handed:
    """Raises BadReply, naming the field."""
    line, _, bodies = payload.partition(b"\n")
    try:
        told = json.loads(line) if len(line) <= HEAD_BYTES else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.get("protocol") != PROTOCOL:
        raise BadReply(f"not handed over in the form that this version reads ({PROTOCOL})")
    if set(told) != FIELDS:
        raise BadReply(f"what is handed over must have the fields {', '.join(sorted(FIELDS))}, and no others")
    size = _whole(told, "request_bytes", len(bodies))
    head = RequestHead(_id(told), _text(told, "method"), _text(told, "path"), _headers(told, "headers"), _time(told))
    return Handed(
        head=head,
        request_body=bodies[:size],
        status=_whole(told, "status", 999),
        response_headers=_headers(told, "response_headers"),
        answer=bodies[size:],
        first_byte_s=_seconds(told, "first_byte_s"),
        duration_s=_seconds(told, "duration_s"),
        ending=_ending(told),
        lost=_lost(told),
    )


def _id(told: dict[str, Any]) -> str:
    if not isinstance(told["id"], str) or not _ID.fullmatch(told["id"]):
        raise BadReply("id must be a UUIDv7")
    return str(told["id"])


def _text(told: dict[str, Any], name: str) -> str:
    value = told[name]
    if not isinstance(value, str) or not 0 < len(value) <= 4096 or not value.isascii():
        raise BadReply(f"{name} must be an ASCII text")
    return value


def _time(told: dict[str, Any]) -> datetime:
    try:
        found = datetime.fromisoformat(told["received_at"])
    except (TypeError, ValueError):
        found = None
    if found is None or found.tzinfo is None:
        raise BadReply("received_at must be a date and time with a zone")
    return found.astimezone(UTC)


def _headers(told: dict[str, Any], name: str) -> Headers:
    try:
        pairs = [(key.encode("latin-1").lower(), value.encode("latin-1")) for key, value in told[name]]
    except (TypeError, ValueError, AttributeError):
        raise BadReply(f"{name} must be a list of [name, value]") from None
    return tuple(pairs)


def _whole(told: dict[str, Any], name: str, most: int) -> int:
    value = told[name]
    if type(value) is not int or not 0 <= value <= most:
        raise BadReply(f"{name} must be a whole number from 0 to {most}")
    return value


def _seconds(told: dict[str, Any], name: str) -> float:
    value = told[name]
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise BadReply(f"{name} must be a number of seconds")
    return float(value)


def _ending(told: dict[str, Any]) -> Ending:
    for ending in get_args(Ending):
        if told["ending"] == ending:
            known: Ending = ending
            return known
    raise BadReply(f"ending must be one of {', '.join(get_args(Ending))}")


def _lost(told: dict[str, Any]) -> dict[str, int]:
    lost = told["lost"]
    if (
        not isinstance(lost, dict)
        or not set(lost) <= LOSSES
        or not all(type(n) is int and n > 0 for n in lost.values())
    ):
        raise BadReply(f"lost must count some of {', '.join(sorted(LOSSES))}")
    return dict(lost)
