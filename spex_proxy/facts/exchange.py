"""What passed through the relay: bytes first, then what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

ExchangeKind = Literal["chat", "completion"]
IdsSource = Literal["reply", "render", "tokenize"]

Headers = tuple[tuple[bytes, bytes], ...]
"""Header lines as they came: (lower-case name, value), in order, duplicates kept."""


@dataclass(frozen=True, slots=True)
class TraceRef:
    """A span, by its W3C ids: enough to link to it after a restart."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits."""
    is_sampled: bool = True

    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What is known of a request before its body: enough to decide whether to watch it."""

    id: str
    """Our own id, a UUIDv7: the key of everything that follows."""
    method: str
    path: str
    """Path without the query string, as the client wrote it."""
    headers: Headers
    received_at: datetime
    """UTC."""

    def header(self, name: bytes) -> str | None:
        """The first value of a header (`name` in lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return None


@dataclass(frozen=True, slots=True)
class RawExchange:
    """A watched request and its answer, complete, as bytes. Nothing is parsed yet."""

    head: RequestHead
    request_body: bytes
    status: int
    response_headers: Headers
    response_body: bytes
    """All chunks joined; for a stream, the whole event stream."""
    first_byte_s: float
    """Seconds from `head.received_at` to the first body byte of the answer."""
    duration_s: float
    """Seconds from `head.received_at` to the last byte of the answer."""
    capture_probability: float
    """Probability with which this request was watched."""
    explain_wish: bool | None
    """What the client's header forces (True) or forbids (False); None leaves it to the draw."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A watched request that is not kept, and why. Reasons are counted by name."""

    request_id: str
    reason: str
    """One of wire.tap.SKIP_REASONS, for example `client_gone` or `too_large`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the prompt. For completions: the one prompt, role `prompt`."""

    role: str
    text: str
    name: str | None = None

    @property
    def provenance(self) -> str:
        """Where the text comes from, for people: `system`, `user`, `tool:search`, ..."""
        return f"{self.role}:{self.name}" if self.name else self.role


@dataclass(frozen=True, slots=True)
class Exchange:
    """One production request with its answer, understood."""

    id: str
    project: str
    kind: ExchangeKind
    model: str
    messages: tuple[Message, ...]
    output_text: str
    finish_reason: str | None
    upstream_id: str | None
    """vLLM's response id, `chatcmpl-...` or `cmpl-...`."""
    streamed: bool
    received_at: datetime
    first_byte_s: float
    duration_s: float
    prompt_tokens: int | None
    """As the server's usage said; None if it said nothing."""
    output_tokens: int | None
    capture_probability: float
    request: Mapping[str, Any] = field(repr=False)
    """The client's JSON body. Rendering the prompt again needs all of it (tools, template arguments)."""
    prompt_ids: tuple[int, ...] | None = field(default=None, repr=False)
    """Token ids of the prompt, if the client asked the server for them or sent them."""
    output_ids: tuple[int, ...] | None = field(default=None, repr=False)
    """Token ids of the answer, if the client asked the server for them."""


@dataclass(frozen=True, slots=True)
class TextRange:
    """Characters [start, end) of message number `message`. What a segmenter returns."""

    message: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One player of a feature game: a range of a message and of the prompt's token ids.

    Holds ranges, never text, so that a segmentation outlives the erasure of its content.
    """

    message: int
    char_start: int
    char_end: int
    token_start: int
    token_end: int
    role: str
    provenance: str


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The players of one exchange. Segments are disjoint, in prompt order, never empty."""

    method: str
    segments: tuple[Segment, ...]

    def __len__(self) -> int:
        return len(self.segments)


@dataclass(frozen=True, slots=True)
class MessagePlace:
    """Where a message's text stands in the rendered prompt: characters [start, end)."""

    start: int
    end: int
    trimmed: int = 0
    """Characters that the template cut from the front of the text (white space)."""


@dataclass(frozen=True, slots=True)
class TokenizedExchange:
    """Prompt and answer as the model saw them. Content: stored erasable, never in a game row."""

    prompt_ids: tuple[int, ...]
    prompt_text: str
    """The rendered prompt, template and all."""
    offsets: tuple[tuple[int, int], ...]
    """Characters [start, end) of `prompt_text` that each prompt id covers."""
    places: tuple[MessagePlace | None, ...]
    """One for each message; None if the template left the message out."""
    output_ids: tuple[int, ...]
    ids_source: IdsSource


@dataclass(frozen=True, slots=True)
class Target:
    """Which part of the answer is explained: tokens [start, end) of the output ids."""

    start: int
    end: int
    label: str = "whole output"
    is_cut: bool = False
    """True if the answer is longer than the cap, so that its tail is not explained."""

    def __len__(self) -> int:
        return self.end - self.start
