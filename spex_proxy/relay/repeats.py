"""The request heads of one connection: mostly the same lines over and over, but for the length of the body."""

from __future__ import annotations

import re

from spex_proxy.relay.heads import Request, read_request

_LENGTH = re.compile(rb"\r\n(?i:content-length):[\t ]*+([0-9]{1,18})\r\n")
_MOST_KEPT = 4096
"""Bytes of a head that are kept for as long as its connection lives."""


class Repeats:
    """Reads heads as `read_request` does. One that differs from the last in the digits of its Content-Length alone says
    what that said, and is not read again; one with a line of its own, such as `traceparent`, is read in full.

    So an app's requests cost a comparison each, and the grammar once. That both come to the same is a property test.
    """

    __slots__ = ("_after", "_back", "_block_at", "_front", "_last")

    def __init__(self) -> None:
        self._last: Request | None = None
        self._front = self._back = b""
        """Of the last head, what stood before and behind the digits."""
        self._after = (b"", b"")
        """The same of `after_host`."""
        self._block_at = 0

    def read(self, head: bytes) -> Request:
        """`head` without the empty line that ends it. Raises BadMessage."""
        last = self._last
        if last is not None and head.startswith(self._front) and head.endswith(self._back):
            digits = head[len(self._front) : len(head) - len(self._back)]
            if digits.isdigit() and len(digits) <= 18 and (length := int(digits)):
                return Request(
                    last.method, last.target, last.minor, head[self._block_at : -2], last.before_host,
                    b"%b%b%b" % (self._after[0], digits, self._after[1]), length,
                    last.keep_alive, last.expects_continue, last.upgrades, last.asks_us,
                )  # fmt: skip
        request = read_request(head)
        self._keep(head, request)
        return request

    def _keep(self, head: bytes, request: Request) -> None:
        """A request without a body may switch protocols, so only those with one are alike in everything else."""
        self._last = None
        if request.length <= 0 or len(head) > _MOST_KEPT:
            return
        there, after = _LENGTH.search(head), _LENGTH.search(request.after_host)
        if there is not None and after is not None:  # else the length is written oddly, or stands before the host
            self._last = request
            self._front, self._back = head[: there.start(1)], head[there.end(1) :]
            self._after = request.after_host[: after.start(1)], request.after_host[after.end(1) :]
            self._block_at = len(head) - 2 - len(request.block)
