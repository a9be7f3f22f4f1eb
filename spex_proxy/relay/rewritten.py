"""A request that asks for a little more than its client did, and an answer that says no more: the one exception
to "bytes are never rewritten". The contract is in wire/rewriting.py; the exchange asks here where one has a rewriter.
"""

from __future__ import annotations

import re

from spex_proxy.relay.heads import CHUNKED, Request, Response, pairs
from spex_proxy.wire.rewriting import Rewriter

_LENGTH_LINE = re.compile(rb"(\r\n(?i:content-length):[\t ]*)[0-9]+")


class Rewritten:
    """One exchange's rewriter, and what is held back for it."""

    __slots__ = ("_held_head", "_is_given_up", "_pieces", "_request", "_rewriter", "_size", "is_ready", "up")

    def __init__(self, rewriter: Rewriter, request: Request) -> None:
        self._rewriter = rewriter
        self._request = request
        self._pieces: list[tuple[bytes, bytes]] = []
        """(Framed for the upstream, what is in it) of the request's body."""
        self._size = 0
        self._is_given_up = False
        self._held_head: Response | None = None
        self.is_ready = False
        """Whether the request may go out: `up` is what goes."""
        self.up: list[bytes] = []

    # ---- the way up

    def gather(self, wire: bytes, payload: bytes, *, is_last: bool) -> bool:
        """A piece of the request's body. True once it is whole, or too long: the request is ready."""
        self._pieces.append((wire, payload))
        self._size += len(payload)
        if self._size > self._rewriter.most_request_bytes:
            self._is_given_up = True
        if is_last or self._is_given_up:
            self._decide()
        return self.is_ready

    def head(self, head: bytes) -> bytes:
        """The request's head, with the length that its body has now."""
        if self._is_given_up or self._request.length == CHUNKED:
            return head
        return _LENGTH_LINE.sub(rb"\g<1>%d" % sum(map(len, self.up)), head, count=1)

    @property
    def is_passing(self) -> bool:
        """True once the rewriter is forgotten: the request was too long to be held."""
        return self._is_given_up

    def _decide(self) -> None:
        self.is_ready = True
        wires = [wire for wire, _ in self._pieces]
        if not self._is_given_up:
            body = b"".join([payload for _, payload in self._pieces])
            asking = self._rewriter.request(body)
            if asking is not body and self._request.length == CHUNKED:
                wires = [b"%x\r\n%b\r\n" % (len(asking), asking), wires[-1]]  # its end, with the trailers
            elif asking is not body:
                wires = [asking]
        self.up, self._pieces = wires, []

    # ---- the way down

    def begins(self, response: Response) -> bool:
        """The answer's head has come; whether it goes out now."""
        self._rewriter.begin(response.status, pairs(response.block))
        self._held_head = response if self._rewriter.holds_head else None
        return self._held_head is None

    def feed(self, payload: bytes) -> tuple[Response | None, bytes]:
        """A head that goes out now, and what the client gets for these bytes: often nothing."""
        out = self._rewriter.feed(payload)
        return (self._let_go() if out else None), out

    def finish(self) -> tuple[Response | None, bytes]:
        """A head that was held to the end, with the length that the answer has now; and its last bytes."""
        out, head = self._rewriter.finish(), self._let_go()
        if head is not None and head.length >= 0:
            passing = _LENGTH_LINE.sub(rb"\g<1>%d" % len(out), head.passing, count=1)
            head = head._replace(passing=passing)
        return head, out

    def _let_go(self) -> Response | None:
        head, self._held_head = self._held_head, None
        return head
