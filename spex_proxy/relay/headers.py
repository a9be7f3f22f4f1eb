"""Which header lines pass. Pure, and the only place where a header is dropped or added.

Dropped, in both directions: the hop-by-hop lines (RFC 9110, 7.6.1), the names that a
`Connection` line lists, and `Trailer`, because trailers are not relayed. Everything else
passes, in order, duplicates kept.

`Host` is rewritten to the upstream's authority: that is what the client would have sent
had it been given the upstream's address, so the upstream sees the request that it would
see without us, and a name-based ingress in front of it still works. Nothing is added:
no X-Forwarded-*, no Via.
"""

from __future__ import annotations

from collections.abc import Iterable

Lines = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_OURS = b"x-spex-"

# `Expect` goes no further: the server in front has sent the 100 already, and waiting for a second one
# from an upstream that sends none would hang the upload.
_NOT_TO_UPSTREAM = frozenset((b"host", b"expect"))


def to_upstream(lines: Lines) -> list[tuple[str, str]]:
    """The client's header lines (names in lower case), as the upstream client wants them."""
    dropped = _named_by_connection(lines) | _HOP_BY_HOP | _NOT_TO_UPSTREAM
    return [
        (name.decode("latin-1"), _text(value))
        for name, value in lines
        if name not in dropped and not name.startswith(_OURS)
    ]


def to_client(lines: Lines, status: int) -> list[tuple[bytes, bytes]]:
    """The upstream's header lines; names come out in lower case."""
    lowered = [(name.lower(), value) for name, value in lines]
    dropped = _named_by_connection(lowered) | _HOP_BY_HOP
    if status == 304:
        # It may carry the length of a body that it has not; uvicorn would wait for that body.
        dropped |= {b"content-length"}
    return [(name, value) for name, value in lowered if name not in dropped]


def value_of(lines: Lines, wanted: bytes) -> bytes | None:
    for name, value in lines:
        if name == wanted:
            return value
    return None


def _named_by_connection(lines: Lines) -> frozenset[bytes]:
    listed = [value for name, value in lines if name == b"connection"]
    if not listed:
        return frozenset()
    return frozenset(token.strip().lower() for token in b",".join(listed).split(b","))


def _text(value: bytes) -> str:
    """aiohttp writes header values as UTF-8, so that is how they are read; what is not UTF-8 (rare, and
    obsolete in HTTP) passes as Latin-1 and changes its bytes. Gone with aiohttp."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
