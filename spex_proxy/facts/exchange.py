"""What passed through the relay: bytes first, then what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

ExchangeKind = Literal["chat", "completion", "response", "message", "game"]
"""What was spoken: chat completions, completions, `/v1/responses` (OpenAI), `/v1/messages` (Anthropic).
Or `game`: nothing was spoken, its messages are the players of a game over a model's components or training data
(flows.written_game)."""
IdsSource = Literal["reply", "render", "tokenize", "words"]
"""Who told them; `words`: nobody, and they number words of the text (wire/wording.py)."""
MessageKind = Literal["text", "tool_definition", "tool_call"]
Spelling = Literal["plain", "json", "json_ascii", "json_html", "whole"]

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


MARK_ARROW = " > "
"""Between a message's origin and the mark of a document in it."""
KNOWN_ROLES = frozenset(
    {"prompt", "system", "developer", "user", "assistant", "tool", "function", "tool_definition", "player"}
)
"""Roles that may stand in a game's row. A client can invent others; those are as private as its text."""


@dataclass(frozen=True, slots=True)
class Message:
    """One text of the prompt that has one origin: a message, one part of it, a tool definition, a tool call.

    For completions: the one prompt, role `prompt`.
    """

    role: str
    text: str
    """As the client sent it. Of tool definitions and calls: their JSON, as most chat templates write it."""
    name: str | None = None
    """Of a tool or a participant."""
    kind: MessageKind = "text"
    part: int | None = None
    """Which text part of its message this is, from 1; None if the message is not a list of several."""

    @property
    def origin(self) -> str:
        """Where the text comes from, without anything that the client made up: fit for a game's row."""
        role = self.role if self.role in KNOWN_ROLES else "other"
        if self.kind == "tool_call":
            return f"{role} tool call"
        return role if self.part is None else f"{role} part {self.part}"

    @property
    def provenance(self) -> str:
        """The same for people, with names: `system`, `user:ann part 2`, `tool:search`, ..."""
        if self.kind == "tool_call":
            return f"{self.role} tool call:{self.name}" if self.name else f"{self.role} tool call"
        who = f"{self.role}:{self.name}" if self.name else self.role
        return who if self.part is None else f"{who} part {self.part}"

    def named(self, provenance: str) -> str:
        """A stored segment's provenance with the name in it: `tool > Item 2` -> `tool:search > Item 2`."""
        origin, arrow, mark = provenance.partition(MARK_ARROW)
        return self.provenance + arrow + mark if origin == self.origin else provenance


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asked for."""

    name: str
    arguments: str
    """As the model wrote them: usually JSON, not always valid."""
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer; with `n`, there are several."""

    text: str
    finish_reason: str | None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[tuple[str, float], ...] | None = None
    """Each token's text and log-probability (natural logarithm), if the client asked for them."""


OBSTACLES: dict[str, str] = {
    "several_choices": "The answer has more than one choice, and an explanation is of one.",
    "tool_calls": "The answer calls tools: the server cut it apart, so its tokens are not known exactly; a rule with "
    "`exact_token_ids` has them kept.",
    "reasoning_output": "The answer has reasoning beside its text: the server cut it apart, so its tokens are not "
    "known exactly; a rule with `exact_token_ids` has them kept.",
    "stored_context": "The prompt goes on from an earlier response that only the server holds "
    "(`previous_response_id`, `conversation`, `prompt`).",
}
"""Why an exchange that was captured can't be explained exactly."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One production request with its answer, understood."""

    id: str
    project: str
    kind: ExchangeKind
    model: str
    messages: tuple[Message, ...]
    """All texts of the prompt: tool definitions first, then the messages in their order."""
    output_text: str
    finish_reason: str | None
    upstream_id: str | None
    """vLLM's response id, `chatcmpl-...`, `cmpl-...` or `resp_...`."""
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
    choices: tuple[Choice, ...] = field(default=(), repr=False)
    """All answers, by their index; `output_text` and `finish_reason` are those of the first."""
    usage: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The server's account of tokens, as it came."""
    obstacle: str | None = None
    """Why it can't be explained, one of OBSTACLES; None if nothing is known to be in the way."""


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
    """The message's origin and, behind ` > `, the document of it: `user > Document 2`. No name, no content."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The players of one exchange. Segments are disjoint, in prompt order, never empty."""

    method: str
    segments: tuple[Segment, ...]
    notes: tuple[str, ...] = ()
    """What could not be masked, and why. No content."""
    filler: tuple[int, ...] = ()
    """Token ids of the masker's `filler` text, if it has one: what may stand in a masked segment's place."""

    def __len__(self) -> int:
        return len(self.segments)


@dataclass(frozen=True, slots=True)
class MessagePlace:
    """Where a message's text stands in the rendered prompt: characters [start, end)."""

    start: int
    end: int
    trimmed: int = 0
    """Characters that the template cut from the front of the text (white space)."""
    spelling: Spelling = "plain"
    """How the characters are written there: as they are, escaped as in a JSON string (non-ASCII as it is,
    as `\\u00e9`, or with `<>&'` escaped too), or `whole`: laid out otherwise, so that it can't be divided."""


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
    output_text: str = ""
    """What the output ids spell: all that the model wrote, tool calls, reasoning and end marks included."""
    output_offsets: tuple[tuple[int, int], ...] = ()
    """Characters [start, end) of `output_text` that each output id covers; empty where that is not known."""


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
