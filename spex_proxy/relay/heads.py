"""Heads of HTTP/1 messages: the strict grammar, what frames the body, and which lines pass. Pure.

One regular expression says what a head may look like (RFC 9112, 2 to 5); whatever it does not
match is refused and goes nowhere, so no two parties can read one message in two ways: bare CR or
LF, folded lines, blanks before a colon, control characters. A second one finds the few lines
that concern us; the bytes of all others pass as they came: order, spelling, duplicates.

Dropped, in both directions: the hop-by-hop lines (RFC 9110, 7.6.1) and those that `Connection`
names. `Host` is rewritten to the upstream's authority: that is what the client would have sent
had it been given the upstream's address. Nothing is added: no X-Forwarded-*, no Via.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from spex_proxy.facts.exchange import Headers

CHUNKED: Final = -1
"""In place of a body's length: it is chunked."""
TO_THE_END: Final = -2
"""In place of an answer's length: it ends with its connection."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_LINES = rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/1\.([01])(?=\r\n)\r\n" + _LINES)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})((?: [\t\x20-\x7e\x80-\xff]*+)?+)\r\n" + _LINES)
_TRAILERS = re.compile(_LINES)
_PAIR = re.compile(rb"\r\n([^:\r]++):[\t ]*+([^\r]*+)")
_CONCERNS_US = re.compile(
    rb"\r\n(?i:(c(?:onnection|ontent-length)|t(?:ransfer-encoding|e)|host|expect|upgrade|keep-alive"
    rb"|proxy-connection|x-spex-[^:\r]*)):[\t ]*+([^\r]*+)"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")

_NOT_IN_TRAILERS = frozenset(
    b"content-length transfer-encoding host connection keep-alive te upgrade trailer content-encoding content-type "
    b"content-range authorization expect proxy-connection".split()
)
# What `Connection` may not take away, or a client could have us send a body without its length.
_NEVER_DROPPED = frozenset((b"content-length", b"transfer-encoding", b"host", b"connection"))
_NO_OPTIONS: frozenset[bytes] = frozenset()
_PLAIN_OPTIONS = (_NO_OPTIONS, frozenset((b"keep-alive",)), frozenset((b"close",)))


class BadMessage(Exception):
    """Not a message that could be read in one way only; says why, for the person who sent it."""


class Request(NamedTuple):
    """A request's head."""

    method: bytes
    target: bytes
    minor: int
    """0 or 1, of HTTP/1.x."""
    block: bytes
    """All header lines as they came, each with the CR LF in front of it."""
    before_host: bytes
    """The lines that pass, up to and with the name `Host:`."""
    after_host: bytes
    """The lines that pass after the host's value, and the empty line."""
    length: int
    """Of the body, in bytes; or CHUNKED."""
    keep_alive: bool
    expects_continue: bool
    upgrades: bool
    asks_us: bool
    """One of its lines is an x-spex- line."""

    def bytes_for(self, prefix: bytes, authority: bytes) -> bytes:
        """The head that goes to an upstream of this authority, below this path."""
        return b"%b %b%b HTTP/1.1%b%b%b" % (
            self.method, prefix, self.target, self.before_host, authority, self.after_host
        )  # fmt: skip


class Response(NamedTuple):
    """An answer's head."""

    status: int
    reason: bytes
    """With the blank before it; may be empty."""
    block: bytes
    """All header lines as they came, each with the CR LF in front of it."""
    passing: bytes
    """The lines that pass, framing by length included."""
    length: int
    """Of the body, in bytes; or CHUNKED, or TO_THE_END."""
    keep_alive: bool
    upgrade: bytes | None
    """To which protocol a 101 switches."""


class _Concerns:
    """What the lines that concern us say, and the block without those that do not pass."""

    __slots__ = ("asks_us", "expects", "has_chunked", "hosts", "kept", "lengths", "options", "upgrade")

    def __init__(self, block: bytes, is_request: bool) -> None:
        self.lengths: list[bytes] = []
        self.options = _NO_OPTIONS
        self.upgrade: bytes | None = None
        self.has_chunked = self.expects = self.asks_us = False
        self.kept: list[bytes] = []
        self.hosts = 0
        """How many pieces of `kept` end with the name `Host:`; 0 if there is no such line."""
        position = 0
        for found in _CONCERNS_US.finditer(block):
            name, value = found.groups()
            known = name.lower()
            if known == b"content-length":
                self.lengths.append(value.rstrip(b"\t "))
            elif known == b"host" and is_request:
                if self.hosts:
                    raise BadMessage("two Host lines")
                self.kept += (block[position : found.start()], b"\r\n%b: " % name)
                self.hosts, position = len(self.kept), found.end()
            elif not self._passes(known, value.rstrip(b"\t "), is_request):
                self.kept.append(block[position : found.start()])
                position = found.end()
        self.kept.append(block[position:])

    def _passes(self, name: bytes, value: bytes, is_request: bool) -> bool:
        """Note what a line says; whether it goes on to the other side."""
        if name == b"connection":
            self.options |= {option.strip(b"\t ").lower() for option in value.split(b",")}
        elif name == b"transfer-encoding":
            if self.has_chunked or value.lower() != b"chunked":
                raise BadMessage("a Transfer-Encoding other than one `chunked`")
            self.has_chunked = True
        elif name == b"upgrade":
            self.upgrade = value
        elif name == b"expect":
            self.expects = is_request and value.lower() == b"100-continue"
            return not is_request
        elif name == b"host":
            return True
        elif name.startswith(b"x-spex-"):
            self.asks_us = True
            return not is_request
        return False

    def length(self) -> int | None:
        """The body's length, CHUNKED, or None if nothing frames it."""
        if self.has_chunked:
            if self.lengths:
                raise BadMessage("both Content-Length and Transfer-Encoding")
            return CHUNKED
        if not self.lengths:
            return None
        if len(self.lengths) > 1 or not _LENGTH.fullmatch(self.lengths[0]):
            raise BadMessage("two Content-Length lines, or one that is not a plain number")
        return int(self.lengths[0])

    def switch(self) -> bytes | None:
        """The protocol that a request may switch to. h2c would open a second one inside the tunnel, and no client needs
        it: it goes on in HTTP/1.1."""
        wanted = self.upgrade if b"upgrade" in self.options else None
        return None if wanted is None or wanted.lower() == b"h2c" else wanted

    def stays_open(self, minor: int) -> bool:
        return b"close" not in self.options and (minor == 1 or b"keep-alive" in self.options)

    def split_at_host(self) -> tuple[bytes, bytes]:
        """The lines that pass: up to and with the name `Host:`, and after its value."""
        kept, hosts = self.kept, self.hosts
        before, after = b"".join(kept[: hosts - 1]), b"".join(kept[hosts:])
        if self.options not in _PLAIN_OPTIONS:
            before, after = self.without_named(before), self.without_named(after)
        return before + kept[hosts - 1], after

    def without_named(self, piece: bytes) -> bytes:
        """A piece of the block without the lines that `Connection` names."""
        dropped = self.options - _NEVER_DROPPED
        return b"".join(m[0] for m in _PAIR.finditer(piece) if m[1].lower() not in dropped)


def read_request(head: bytes) -> Request:
    """`head` without the empty line that ends it. Raises BadMessage."""
    found = _REQUEST.fullmatch(head)
    if found is None:
        raise BadMessage(_trouble_with(head))
    minor = 0 if found[3] == b"0" else 1
    block = head[found.end(3) : -2]
    says = _Concerns(block, is_request=True)
    if says.has_chunked and not minor:
        raise BadMessage("Transfer-Encoding in HTTP/1.0")
    length = says.length() or 0
    if not says.hosts:
        if minor:
            raise BadMessage("no Host line")
        says.kept.insert(0, b"\r\nHost: ")
        says.hosts = 1
    framing = b"\r\nTransfer-Encoding: chunked" if length == CHUNKED else b""
    switch = says.switch() if not length and minor == 1 else None
    if switch is not None:
        framing = b"\r\nConnection: Upgrade\r\nUpgrade: " + switch
    before, after = says.split_at_host()
    return Request(
        found[1], found[2], minor, block, before, b"%b%b\r\n\r\n" % (after, framing), length,
        says.stays_open(minor), says.expects and minor == 1, switch is not None, says.asks_us,
    )  # fmt: skip


def read_response(head: bytes, method: bytes) -> Response:
    """`head` without its empty line; `method` of the request that it answers. Raises BadMessage."""
    found = _RESPONSE.fullmatch(head)
    if found is None:
        raise BadMessage("a head that is not HTTP/1")
    minor = 0 if found[1] == b"0" else 1
    status = int(found[2])
    block = head[found.end(3) : -2]
    says = _Concerns(block, is_request=False)
    if says.has_chunked and not minor:
        raise BadMessage("Transfer-Encoding in HTTP/1.0")
    length = says.length()
    if method == b"HEAD" or status < 200 or status in (204, 304):
        length = 0
    elif length is None:
        length = TO_THE_END
    passing = b"".join(says.kept)
    if says.options not in _PLAIN_OPTIONS:
        passing = says.without_named(passing)
    return Response(status, found[3], block, passing, length, says.stays_open(minor), says.upgrade)


def pairs(block: bytes) -> Headers:
    """(lower-case name, value) of each line of a block."""
    return tuple([(name.lower(), value.rstrip(b"\t ")) for name, value in _PAIR.findall(block)])


def passing_trailers(lines: bytes) -> bytes:
    """The lines of a trailer section that may pass. Raises BadMessage."""
    if not _TRAILERS.fullmatch(lines):
        raise BadMessage("a trailer section that is not made of header lines")
    kept = []
    for line in lines.split(b"\r\n")[:-1]:
        name = line.partition(b":")[0].lower()
        if name not in _NOT_IN_TRAILERS and not name.startswith(b"x-spex-"):
            kept.append(line + b"\r\n")
    return b"".join(kept)


_FIRST = re.compile(_TOKEN + rb"|\r")
_BARE = re.compile(rb"[^\r]\n|\r[^\n]")


def cannot_become_a_head(begun: bytes, known: int) -> bool:
    """Whether what has come of a head is wrong already, so that there is no use in waiting for the rest.

    The first `known` bytes were looked at before.
    """
    return _FIRST.match(begun) is None or _BARE.search(begun, known) is not None


_TROUBLES = (
    (re.compile(rb"[^\r]\n|\A\n"), "a line that ends with a bare LF"),
    (re.compile(rb"\r(?!\n)"), "a bare CR"),
    (re.compile(rb"\n[\t ]"), "a folded header line"),
    (re.compile(rb"\n[^:\r\n]*[\t ]+:"), "blanks before a header's colon"),
    (re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"), "control characters"),
    (re.compile(rb"\A[^\r\n]* HTTP/(?!1\.[01]\r)"), "a version other than HTTP/1.0 and HTTP/1.1"),
)


def _trouble_with(head: bytes) -> str:
    for pattern, words in _TROUBLES:
        if pattern.search(head):
            return words
    return "a request line or header line that is not HTTP"
