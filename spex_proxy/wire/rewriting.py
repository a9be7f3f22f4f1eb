"""The contract between the relay and whoever may change a watched request: nobody, unless a rule says so.

Relayed bytes are never rewritten. The one exception is a rule with `exact_token_ids`: it has the
request ask vLLM for token ids and takes them out of the answer again (wire/exact_ids.py), so that
the client gets the events that it would have got without. What the relay does with a rewriter:

    tap = watcher.consider(head);  rewriter = tap.rewriter            None nearly always: nothing changes

    request   the body is gathered, at most `rewriter.most_request_bytes`. If it is longer, what was gathered
              and the rest go out as they are, and the rewriter is forgotten. Else
              `rewriter.request(body)` is sent in its place; if the length differs, `Content-Length` is
              set anew (a chunked body stays chunked). The tap is given the client's bytes.
    head      `rewriter.begin(status, headers)` before the head is sent. If `rewriter.holds_head` then,
              the head waits until `feed` returns something (send it as it came) or the end.
    body      `rewriter.feed(chunk)` in place of each chunk, often b"": nothing to send yet.
              The tap is given the upstream's chunk.
    end       `rewriter.finish()`: the last bytes. If the head is still held and the upstream sent a
              `Content-Length`, it becomes the length of these bytes; else the head goes as it came.
    break     (the upstream broke off, the client left) nothing more: what is held is let go.

No method waits, reads a clock, or raises: a rewriter that fails lets everything pass as it comes.
"""

from __future__ import annotations

from typing import Protocol

from spex_proxy.facts.exchange import Headers


class Rewriter(Protocol):
    """Rewrites one exchange. Calls in order: request, begin, feed ..., finish."""

    @property
    def most_request_bytes(self) -> int:
        """Longest request body that may be held back for `request`."""
        ...

    @property
    def holds_head(self) -> bool:
        """Whether the answer's head must wait, because its length is about to change."""
        ...

    def request(self, body: bytes) -> bytes:
        """The body to send upstream; the same object if nothing is changed."""
        ...

    def begin(self, status: int, headers: Headers) -> None:
        """The answer's head, as the upstream sent it."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """What the client gets for this chunk, now."""
        ...

    def finish(self) -> bytes:
        """What the client gets at the end of the answer."""
        ...
