"""The bounded tap: what is kept of one exchange while it passes, and every reason not to keep it.

A tap holds references to the chunks that were relayed, never copies, and never more
than its limits. Over a limit it lets go of everything at once and says why in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spex_proxy.facts.exchange import Headers, RawExchange, RequestHead, Skipped
from spex_proxy.wire.rewriting import Rewriter

SKIP_REASONS: dict[str, str] = {
    # said by the tap
    "too_large_request": "The request's body is larger than the tap's limit.",
    "too_large_answer": "The answer, as sent or unpacked, is larger than the tap's limit.",
    "memory_full": "All watched requests together held as many bytes as they may.",
    "client_gone": "The client left before the answer was complete.",
    "upstream_error": "The upstream answered with an error: a status other than 200, or an error object.",
    "upstream_broken": "The upstream broke off in the middle of its answer.",
    "upstream_unreachable": "The upstream gave no answer at all.",
    "stopped": "The proxy was stopped before the answer was complete.",
    # said by the parser, about the bytes
    "unsupported_encoding": "A body is packed in a way that we don't unpack (br, zstd, ...), or is broken.",
    "not_json": "A body, or an event of the stream, is not valid JSON.",
    "bad_text": "A text holds half a surrogate pair: no tokeniser takes it, and no database.",
    "unknown_shape": "The request or the answer has a shape that we don't know.",
    # said by the parser, about the request
    "empty_prompt": "The prompt has no text.",
    "several_prompts": "The request holds more than one prompt.",
    "has_images": "The exchange holds images.",
    "has_audio": "The exchange holds audio.",
    "unsupported_content": "The exchange holds other content that is not text (video, files, server-side tools, ...).",
    "echoed_prompt": "The client asked for the prompt to be repeated in the answer (`echo`).",
    # said by the parser, about the answer
    "error_in_stream": "The upstream reported an error inside a stream that had begun well.",
    "unfinished_answer": "The answer has no finish reason, or was aborted by the server.",
    "no_output": "The answer has no text, no reasoning and no tool call.",
    # said by the sampler
    "not_sampled": "It was watched because a rule might have captured it; the rule that fits it did not.",
}
"""Reason -> what it means. Every watched request that is not kept is counted under one of them."""

Ending = Literal["complete", "client_gone", "upstream_broken", "upstream_unreachable", "stopped"]
"""How an exchange ended, as the relay saw it."""


CHUNK_OVERHEAD = 48
"""What a chunk costs beside its bytes (object header, list slot): tiny chunks fill memory too."""


@dataclass(frozen=True, slots=True)
class TapLimits:
    """Most bytes that one tap may hold; every chunk counts CHUNK_OVERHEAD more than its length."""

    request_bytes: int = 2 * 1024 * 1024
    answer_bytes: int = 8 * 1024 * 1024


class TapBudget:
    """Most bytes that all taps of one event loop may hold together. Not for several threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0

    def take(self, size: int) -> bool:
        if self.held + size > self.max_bytes:
            return False
        self.held += size
        return True

    def give_back(self, size: int) -> None:
        self.held -= size


_LAST_EVENTS = (b"data: [DONE]", b"event: message_stop", b"event: response.completed", b"event: response.incomplete")
"""How the last event of a stream begins; after it the server says nothing more."""
_LAST_MARKS = tuple(b"\n" + mark for mark in _LAST_EVENTS)
_LONGEST_MARK = max(map(len, _LAST_MARKS))


class Skip(Exception):
    """This exchange is not kept; `reason` is one of SKIP_REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Tap:
    """Sees one exchange go by. Call in order: request chunks, the answer's start, its chunks, finish."""

    __slots__ = (
        "_answer", "_answer_size", "_budget", "_first_byte_s", "_headers", "_limits", "_probability",
        "_request", "_request_size", "_skip", "_status", "_wish", "head", "rewriter",
    )  # fmt: skip

    def __init__(
        self,
        head: RequestHead,
        limits: TapLimits,
        budget: TapBudget,
        capture_probability: float,
        explain_wish: bool | None,
        rewriter: Rewriter | None = None,
    ) -> None:
        self.head = head
        self.rewriter = rewriter
        """Asked by the relay; None leaves every byte as it is (wire/rewriting.py)."""
        self._limits = limits
        self._budget = budget
        self._probability = capture_probability
        self._wish = explain_wish
        self._request: list[bytes] = []
        self._request_size = 0
        self._answer: list[bytes] = []
        self._answer_size = 0
        self._status = 0
        self._headers: Headers = ()
        self._first_byte_s: float | None = None
        self._skip: str | None = None

    def request_chunk(self, chunk: bytes) -> None:
        if self._skip is not None:
            return
        size = len(chunk) + CHUNK_OVERHEAD
        if self._request_size + size > self._limits.request_bytes:
            self._give_up("too_large_request")
        elif not self._budget.take(size):
            self._give_up("memory_full")
        else:
            self._request_size += size
            self._request.append(chunk)

    def response_start(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = headers
        if status != 200 and self._skip is None:
            self._give_up("upstream_error")

    def response_chunk(self, chunk: bytes, seconds: float) -> None:
        """`seconds` since the request arrived."""
        if self._first_byte_s is None:
            self._first_byte_s = seconds
        if self._skip is not None:
            return
        size = len(chunk) + CHUNK_OVERHEAD
        if self._answer_size + size > self._limits.answer_bytes:
            self._give_up("too_large_answer")
        elif not self._budget.take(size):
            self._give_up("memory_full")
        else:
            self._answer_size += size
            self._answer.append(chunk)

    def sees_end(self, chunk: bytes) -> bool:
        """Does the last event of a stream begin in this chunk, or end in it? Ask before the chunk is fed.

        Clients close at that event, before the stream's formal end. Only at the start of a line: text inside
        an event can't hold one. Costs a fraction of a microsecond.
        """
        before = self._answer[-1][-_LONGEST_MARK:] if self._answer else b"\n"
        seen = before + chunk
        return any(mark in seen for mark in _LAST_MARKS)

    def finish(self, ending: Ending, seconds: float) -> RawExchange | Skipped:
        """What was seen, whole; or why it is not kept. The tap holds nothing afterwards.

        A client may leave as soon as it has all it wants: the openai client closes a stream at `[DONE]`,
        before its formal end. Such an exchange is whole.
        """
        if self._skip is None and ending != "complete" and not (ending == "client_gone" and self._is_whole()):
            self._skip = ending
        if self._skip is not None:
            self._let_go()
            return Skipped(self.head.id, self._skip)
        raw = RawExchange(
            head=self.head,
            request_body=b"".join(self._request),
            status=self._status,
            response_headers=tuple((name.lower(), value) for name, value in self._headers),
            response_body=b"".join(self._answer),
            first_byte_s=seconds if self._first_byte_s is None else self._first_byte_s,
            duration_s=seconds,
            capture_probability=self._probability,
            explain_wish=self._wish,
        )
        self._let_go()
        return raw

    def _is_whole(self) -> bool:
        """Has the answer's last meaningful byte gone by: its declared length, or the event that ends a stream?"""
        named = {name.lower(): value for name, value in self._headers}
        length = named.get(b"content-length", b"")
        if length.isdigit():
            return sum(map(len, self._answer)) == int(length)
        is_stream = named.get(b"content-type", b"").startswith(b"text/event-stream")
        if not is_stream:
            return False
        events = b"".join(self._answer)
        # the last event is complete if a blank line ends it; only vLLM's own spelling is known here
        before, _, rest = events.rpartition(b"\n\n")
        return not rest and before.rpartition(b"\n\n")[2].startswith(_LAST_EVENTS)

    def discard(self) -> None:
        """Let go of everything without an outcome."""
        self._let_go()

    def _give_up(self, reason: str) -> None:
        self._skip = reason
        self._let_go()

    def _let_go(self) -> None:
        self._budget.give_back(self._request_size + self._answer_size)
        self._request_size = self._answer_size = 0
        self._request.clear()
        self._answer.clear()
