"""Bodies as they came over the wire -> bytes unpacked -> JSON that is safe to keep."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any, NoReturn

from spex_proxy.facts.exchange import Headers
from spex_proxy.wire.tap import Skip

MAX_UNPACKED_BYTES = 32 * 1024 * 1024
"""A small compressed body may unpack to anything; this is where we stop."""

# zlib's window bits: 47 finds out by itself whether it is gzip or zlib; -15 is deflate without a header,
# which some servers send under the name of deflate.
_GZIP_OR_ZLIB, _BARE_DEFLATE = 47, -15


def unpack(body: bytes, headers: Headers, *, too_large: str) -> bytes:
    """The body without its content encodings. Raises Skip."""
    names = [v for key, value in headers if key == b"content-encoding" for v in value.lower().split(b",")]
    for name in reversed([n.strip() for n in names]):
        if name in (b"gzip", b"x-gzip"):
            body = _inflate(body, _GZIP_OR_ZLIB, too_large)
        elif name == b"deflate":
            # RFC 9110: deflate means zlib's format, whose first byte's low nibble is 8.
            bits = _GZIP_OR_ZLIB if body[:1] and body[0] & 0x0F == 8 else _BARE_DEFLATE
            body = _inflate(body, bits, too_large)
        elif name not in (b"identity", b""):
            raise Skip("unsupported_encoding")
    return body


def _inflate(body: bytes, window_bits: int, too_large: str) -> bytes:
    parts: list[bytes] = []
    room = MAX_UNPACKED_BYTES
    while body:  # a gzip body may be several members, one after the other
        stream = zlib.decompressobj(window_bits)
        try:
            part = stream.decompress(body, room + 1)
        except zlib.error:
            raise Skip("unsupported_encoding") from None
        room -= len(part)
        if room < 0:
            raise Skip(too_large)
        if not stream.eof:
            raise Skip("unsupported_encoding")
        parts.append(part)
        body = stream.unused_data
    return b"".join(parts)


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object of which every text and number can be stored and written again. Raises Skip.

    Python's parser takes more than JSON: NaN, numbers that overflow to infinity, half
    surrogate pairs. Each would only fail later, in the store, with others' rows.
    """
    try:
        value = json.loads(body, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):  # also wrong UTF-8, integers of thousands of digits, deep nesting
        raise Skip("not_json") from None
    if not isinstance(value, dict):
        raise Skip("unknown_shape")
    if b"\\ud" in body.lower():
        _refuse_half_pairs(value)
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} overflows")
    return number


def _refuse_half_pairs(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Skip("bad_text") from None
    except RecursionError:
        raise Skip("not_json") from None
