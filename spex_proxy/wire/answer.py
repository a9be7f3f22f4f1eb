"""The answer's side of an exchange: one JSON object, or a stream of them, -> one Answer. Raises Skip.

Both forms are read by the same code: a plain answer is a stream of one chunk whose
`message` is its `delta`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.exchange import ExchangeKind
from spex_proxy.wire.body import read_object
from spex_proxy.wire.prompt import token_ids
from spex_proxy.wire.sse import SseDecoder
from spex_proxy.wire.tap import Skip

_UNFINISHED = (None, "", "abort", "error")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, put together."""

    text: str
    finish_reason: str
    upstream_id: str | None
    model: str | None
    prompt_tokens: int | None
    output_tokens: int | None
    prompt_ids: tuple[int, ...] | None
    output_ids: tuple[int, ...] | None


def read_answer(kind: ExchangeKind, body: bytes) -> Answer:
    """A plain JSON answer."""
    reply = read_object(body)
    if _has(reply, "error") or reply.get("object") == "error":
        raise Skip("upstream_error")
    pieces = _Pieces(kind)
    pieces.add(reply, "message")
    return pieces.whole()


def read_stream(kind: ExchangeKind, body: bytes) -> Answer:
    """A whole event stream. What follows `[DONE]` is not read; an event cut off at the end is none."""
    try:
        events = SseDecoder(max_event_bytes=len(body) + 1).feed(body)
    except BadReply:
        raise Skip("too_large_answer") from None
    pieces = _Pieces(kind)
    for event in events:
        if event.data.strip() == b"[DONE]":
            break
        reply = read_object(event.data)
        if _has(reply, "error") or reply.get("object") == "error":
            raise Skip("error_in_stream")
        pieces.add(reply, "delta")
    return pieces.whole()


@dataclass(slots=True)
class _Pieces:
    """Gathers the chunks of one answer."""

    kind: ExchangeKind
    text: list[str] = field(default_factory=list)
    output_ids: list[int] = field(default_factory=list)
    has_ids: bool = False
    lacks_ids: bool = False
    finish_reason: str | None = None
    upstream_id: str | None = None
    model: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    prompt_ids: tuple[int, ...] | None = None

    def add(self, reply: Mapping[str, Any], message_field: str) -> None:
        self.upstream_id = self.upstream_id or as_name(reply.get("id"))
        self.model = self.model or as_name(reply.get("model"))
        usage = reply.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
        self._take_prompt_ids(reply)
        choices = reply.get("choices")
        if not isinstance(choices, list):
            raise Skip("unknown_shape")
        for choice in choices:  # the usage chunk at a stream's end has none
            if not isinstance(choice, dict):
                raise Skip("unknown_shape")
            self._add_choice(choice, message_field)
        if len(choices) > 1:
            raise Skip("several_choices")

    def _add_choice(self, choice: Mapping[str, Any], message_field: str) -> None:
        if choice.get("index", 0) != 0:
            raise Skip("several_choices")
        text = choice.get("text") if self.kind == "completion" else _spoken(choice.get(message_field))
        if text is None:
            text = ""
        if not isinstance(text, str):
            raise Skip("unknown_shape")
        self.text.append(text)
        self._take_prompt_ids(choice)
        ids = token_ids(choice.get("token_ids"))
        if ids is not None:
            self.has_ids = True
            self.output_ids.extend(ids)
        elif text:
            self.lacks_ids = True
        self.finish_reason = as_name(choice.get("finish_reason")) or self.finish_reason

    def _take_prompt_ids(self, source: Mapping[str, Any]) -> None:
        # Chat puts them beside `choices`, completions into the choice; a stream, in its first chunk only.
        if self.prompt_ids is None:
            self.prompt_ids = token_ids(source.get("prompt_token_ids"))

    def whole(self) -> Answer:
        text = "".join(self.text)
        if self.finish_reason in _UNFINISHED:
            raise Skip("unfinished_answer")
        if not text:
            raise Skip("no_output")
        return Answer(
            text=text,
            finish_reason=str(self.finish_reason),
            upstream_id=self.upstream_id,
            model=self.model,
            prompt_tokens=_count(self.usage.get("prompt_tokens")),
            output_tokens=_count(self.usage.get("completion_tokens")),
            prompt_ids=self.prompt_ids,
            # Ids that are there for a part of the text only are as good as none.
            output_ids=tuple(self.output_ids) if self.has_ids and not self.lacks_ids else None,
        )


def _spoken(message: Any) -> Any:
    """The text of a chat message or delta; raises Skip if the model said more than text."""
    if message is None:
        return ""
    if not isinstance(message, dict):
        raise Skip("unknown_shape")
    if _has(message, "tool_calls") or _has(message, "function_call"):
        raise Skip("tool_calls")
    if _has(message, "reasoning") or _has(message, "reasoning_content"):
        raise Skip("reasoning_output")
    if _has(message, "audio") or isinstance(message.get("content"), list):
        raise Skip("unsupported_content")
    return message.get("content")


def _has(mapping: Mapping[str, Any], name: str) -> bool:
    """Whether a field says something. vLLM writes out empty fields as null or []."""
    return mapping.get(name) not in (None, "", [], {}, False)


def as_name(value: Any) -> str | None:
    # A NUL is valid JSON, but PostgreSQL keeps no text with one; what names a thing never has one.
    return value if isinstance(value, str) and value and "\x00" not in value else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None
