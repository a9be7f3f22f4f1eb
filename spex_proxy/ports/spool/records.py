"""One exchange as a record of a spool file, and how records are found again in a file that may be damaged. Pure.

    mark (16 bytes) | length of the payload (4, little-endian) | CRC-32 of length and payload (4) | payload

The mark is random and different in each spool, so no client can write something into a prompt that reads as a
record. The payload is one line of JSON and the two bodies.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Literal, NamedTuple

from spex_proxy.facts.exchange import Headers, RawExchange, RequestHead

MARK_BYTES = 16
_HEADER = struct.Struct(f"<{MARK_BYTES}sII")
HEADER_BYTES = _HEADER.size

_SECRET_WORDS = (b"auth", b"cookie", b"key", b"token", b"secret", b"passw", b"credential", b"signature")
"""A header whose name has one of them may carry what lets others in."""

Damage = Literal["torn", "corrupt"]


class Record(NamedTuple):
    """Where a record's payload stands in its file."""

    start: int
    length: int


def is_secret(name: bytes) -> bool:
    """Whether a header of this name is kept from the disk."""
    lower = name.lower()
    return any(word in lower for word in _SECRET_WORDS)


def secrets_of(raw: RawExchange) -> Headers:
    """The request's headers that `pack` leaves out."""
    return tuple(line for line in raw.head.headers if is_secret(line[0]))


def with_secrets(raw: RawExchange, hidden: Headers) -> RawExchange:
    """The same with those headers again, as long as the process remembers them: rules may compare one."""
    return replace(raw, head=replace(raw.head, headers=raw.head.headers + hidden)) if hidden else raw


def pack(raw: RawExchange) -> bytes:
    """The payload, without headers that may carry secrets."""
    head = raw.head
    told = {
        "id": head.id,
        "method": head.method,
        "path": head.path,
        "received_at": head.received_at.isoformat(),
        "headers": _lines(head.headers),
        "status": raw.status,
        "response_headers": _lines(raw.response_headers),
        "first_byte_s": raw.first_byte_s,
        "duration_s": raw.duration_s,
        "capture_probability": raw.capture_probability,
        "explain_wish": raw.explain_wish,
        "request_bytes": len(raw.request_body),
    }
    return b"".join((json.dumps(told).encode("ascii"), b"\n", raw.request_body, raw.response_body))


def unpack(payload: bytes) -> RawExchange:
    """What `pack` was given, but for its secrets. Raises ValueError if it is no such payload."""
    line, _, bodies = payload.partition(b"\n")
    try:
        told = json.loads(line)
        size = told["request_bytes"]
        received_at = datetime.fromisoformat(told["received_at"])
        return RawExchange(
            head=RequestHead(told["id"], told["method"], told["path"], _bytes(told["headers"]), received_at),
            request_body=bodies[:size],
            status=told["status"],
            response_headers=_bytes(told["response_headers"]),
            response_body=bodies[size:],
            first_byte_s=told["first_byte_s"],
            duration_s=told["duration_s"],
            capture_probability=told["capture_probability"],
            explain_wish=told["explain_wish"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no exchange: {error!r}") from None


def frame(mark: bytes, payload: bytes) -> bytes:
    """The header that goes before a payload."""
    return _HEADER.pack(mark, len(payload), _checksum(payload))


def is_whole(mark: bytes, header: bytes, payload: bytes) -> bool:
    """Whether a header and the payload behind it are what was written."""
    return len(header) == HEADER_BYTES and _HEADER.unpack(header) == (mark, len(payload), _checksum(payload))


def scan(data: bytes, mark: bytes) -> Iterator[Record | Damage]:
    """All records of a file, and each place where one can't be read.

    `torn`: the file ends inside a record, as after a crash in the middle of a write. `corrupt`: what stands there
    is no record, or another than was written; reading goes on at the next mark that begins a whole one.
    """
    position = 0
    while position < len(data):
        found = _record(data, position, mark)
        if isinstance(found, Record):
            yield found
            position = found.start + found.length
            continue
        after = found if found is not None and _may_begin(data, found, mark) else _next_whole(data, position + 1, mark)
        if after is None:
            yield "torn" if _is_cut(data, position, mark) else "corrupt"
            return
        yield "corrupt"
        position = after


def _record(data: bytes, position: int, mark: bytes) -> Record | int | None:
    """A whole record here; or where the next would begin if only the payload is damaged; or None."""
    start = position + HEADER_BYTES
    if start > len(data):
        return None
    seen, length, checksum = _HEADER.unpack_from(data, position)
    if seen != mark or start + length > len(data):
        return None
    payload = data[start : start + length]
    return Record(start, length) if _checksum(payload) == checksum else start + length


def _may_begin(data: bytes, position: int, mark: bytes) -> bool:
    return position == len(data) or data.startswith(mark, position)


def _next_whole(data: bytes, position: int, mark: bytes) -> int | None:
    while (position := data.find(mark, position)) >= 0:
        if isinstance(_record(data, position, mark), Record):
            return position
        position += 1
    return None


def _is_cut(data: bytes, position: int, mark: bytes) -> bool:
    """Does the file end inside what begins here?"""
    rest = data[position : position + HEADER_BYTES]
    if len(rest) < HEADER_BYTES:
        return rest[:MARK_BYTES] == mark[: len(rest)]
    seen, length, _ = _HEADER.unpack(rest)
    return bool(seen == mark and position + HEADER_BYTES + length > len(data))


def _checksum(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "little")))


def _lines(headers: Headers) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers if not is_secret(name)]


def _bytes(lines: list[list[str]]) -> Headers:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in lines)
