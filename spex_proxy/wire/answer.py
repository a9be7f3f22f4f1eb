"""The answer's side of an exchange: one JSON object, or a stream of them, -> one Answer. Raises Skip.

Chat completions and completions are read here; wire.responses and wire.messages make the same Answer. Both
forms are read by the same code: a plain answer is a stream of one chunk whose `message` is its `delta`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.exchange import Choice, ExchangeKind, ToolCall
from spex_proxy.wire.body import read_object
from spex_proxy.wire.prompt import token_ids
from spex_proxy.wire.sse import Event, SseDecoder
from spex_proxy.wire.tap import Skip

_UNFINISHED = (None, "", "abort", "error")
_MOST_CALLS = 1_000
"""Tool calls in one answer; an index beyond it is no index."""
LONGEST_NAME = 512
"""Characters. The store finds exchanges by an answer's id and by the model, and PostgreSQL's index has no room for
more. A longer name is none: half of one is nobody's, and whoever looks for the whole would not find it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, put together."""

    choices: tuple[Choice, ...]
    upstream_id: str | None
    model: str | None
    prompt_tokens: int | None
    output_tokens: int | None
    usage: Mapping[str, Any] = field(default_factory=dict)
    prompt_ids: tuple[int, ...] | None = None
    output_ids: tuple[int, ...] | None = None

    def obstacle(self) -> str | None:
        """Why the answer can't be scored token by token: one of facts.exchange.OBSTACLES."""
        if len(self.choices) > 1:
            return "several_choices"
        choice = self.choices[0]
        if self.output_ids is not None and self.output_tokens in (None, len(self.output_ids)):
            return None  # all that the model wrote, whatever the server cut out of it
        if choice.tool_calls:
            return "tool_calls"
        return "reasoning_output" if choice.reasoning else None


def checked(answer: Answer) -> Answer:
    """Raises Skip for an answer that ended badly, or says nothing at all."""
    if not answer.choices or any(choice.finish_reason in _UNFINISHED for choice in answer.choices):
        raise Skip("unfinished_answer")
    if not any(choice.text or choice.reasoning or choice.tool_calls for choice in answer.choices):
        raise Skip("no_output")
    return answer


def read_answer(kind: ExchangeKind, body: bytes) -> Answer:
    """A plain JSON answer."""
    reply = read_object(body)
    if has(reply, "error") or reply.get("object") == "error":
        raise Skip("upstream_error")
    pieces = _Pieces(kind)
    pieces.add(reply, "message")
    return pieces.whole()


def read_stream(kind: ExchangeKind, body: bytes) -> Answer:
    """A whole event stream. What follows `[DONE]` is not read; an event cut off at the end is none."""
    pieces = _Pieces(kind)
    for event in events_of(body):
        reply = read_object(event.data)
        if has(reply, "error") or reply.get("object") == "error":
            raise Skip("error_in_stream")
        pieces.add(reply, "delta")
    return pieces.whole()


def events_of(body: bytes) -> Iterator[Event]:
    """The events of a whole stream up to `[DONE]`. Raises Skip."""
    try:
        events = SseDecoder(max_event_bytes=len(body) + 1).feed(body)
    except BadReply:
        raise Skip("too_large_answer") from None
    for event in events:
        if event.data.strip() == b"[DONE]":
            return
        yield event


@dataclass(slots=True)
class _Voice:
    """Gathers one choice."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    logprobs: list[tuple[str, float]] | None = None
    ids: list[int] = field(default_factory=list)
    has_ids: bool = False
    lacks_ids: bool = False
    finish_reason: str | None = None

    def choice(self) -> Choice:
        calls = [self.calls[index] for index in sorted(self.calls)]
        return Choice(
            text="".join(self.text),
            finish_reason=self.finish_reason,
            reasoning="".join(self.reasoning),
            tool_calls=tuple(ToolCall(call["name"], "".join(call["arguments"]), call["id"]) for call in calls),
            logprobs=None if self.logprobs is None else tuple(self.logprobs),
        )

    def say(self, message: Any) -> str:
        """Take a chat message or delta; returns its text."""
        if message is None:
            return ""
        if not isinstance(message, dict):
            raise Skip("unknown_shape")
        if has(message, "audio"):
            raise Skip("has_audio")
        if isinstance(message.get("content"), list):
            raise Skip("unsupported_content")
        self.reasoning.append(text_in(message, "reasoning") or text_in(message, "reasoning_content"))
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise Skip("unknown_shape")
        for position, call in enumerate(calls):
            self._call(call, position)
        if has(message, "function_call"):
            self._call({"function": message["function_call"]}, 0)
        return text_in(message, "content") or text_in(message, "refusal")

    def _call(self, call: Any, position: int) -> None:
        function = call.get("function") if isinstance(call, dict) else None
        index = call.get("index", position) if isinstance(call, dict) else None
        if not isinstance(function, dict) or type(index) is not int or not 0 <= index < _MOST_CALLS:
            raise Skip("unknown_shape")
        known = self.calls.setdefault(index, {"name": "", "arguments": [], "id": None})
        known["name"] = known["name"] or text_in(function, "name")
        known["id"] = known["id"] or as_name(call.get("id"))
        known["arguments"].append(text_in(function, "arguments"))

    def take_logprobs(self, given: Any) -> None:
        found = read_logprobs(given)
        if found is not None:
            self.logprobs = [*(self.logprobs or ()), *found]


@dataclass(slots=True)
class _Pieces:
    """Gathers the chunks of one answer."""

    kind: ExchangeKind
    voices: dict[int, _Voice] = field(default_factory=dict)
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
        for position, choice in enumerate(choices):  # the usage chunk at a stream's end has none
            if not isinstance(choice, dict):
                raise Skip("unknown_shape")
            self._add_choice(choice, message_field, position)

    def _add_choice(self, choice: Mapping[str, Any], message_field: str, position: int) -> None:
        index = choice.get("index", position)
        if type(index) is not int or not 0 <= index < _MOST_CALLS:
            raise Skip("unknown_shape")
        voice = self.voices.setdefault(index, _Voice())
        text = text_in(choice, "text") if self.kind == "completion" else voice.say(choice.get(message_field))
        voice.text.append(text)
        voice.take_logprobs(choice.get("logprobs"))
        self._take_prompt_ids(choice)
        ids = token_ids(choice.get("token_ids"))
        if ids is not None:
            voice.has_ids = True
            voice.ids.extend(ids)
        elif text:
            voice.lacks_ids = True
        voice.finish_reason = as_name(choice.get("finish_reason")) or voice.finish_reason

    def _take_prompt_ids(self, source: Mapping[str, Any]) -> None:
        # Chat puts them beside `choices`, completions into the choice; a stream, in its first chunk only.
        if self.prompt_ids is None:
            self.prompt_ids = token_ids(source.get("prompt_token_ids"))

    def whole(self) -> Answer:
        first = self.voices[min(self.voices)] if self.voices else _Voice()
        return checked(
            Answer(
                choices=tuple(self.voices[index].choice() for index in sorted(self.voices)),
                upstream_id=self.upstream_id,
                model=self.model,
                prompt_tokens=count(self.usage.get("prompt_tokens")),
                output_tokens=count(self.usage.get("completion_tokens")),
                usage=self.usage,
                prompt_ids=self.prompt_ids,
                # Ids that are there for a part of the text only are as good as none.
                output_ids=tuple(first.ids) if first.has_ids and not first.lacks_ids else None,
            )
        )


def read_logprobs(given: Any) -> list[tuple[str, float]] | None:
    """Tokens and their log-probabilities: of chat (`content`), responses (a list), completions (two lists).

    None where there are none, or where they have another shape: they are worth keeping, not worth losing
    an exchange for. Tokens without a number (the first of an echoed prompt) are left out.
    """
    items = given.get("content") if isinstance(given, dict) else given
    if isinstance(given, dict) and isinstance(given.get("tokens"), list):
        numbers = given.get("token_logprobs")
        pairs = list(zip(given["tokens"], numbers if isinstance(numbers, list) else [], strict=False))
    elif isinstance(items, list) and items:
        pairs = [(item.get("token"), item.get("logprob")) for item in items if isinstance(item, dict)]
    else:
        return None
    found = [(t, float(v)) for t, v in pairs if isinstance(t, str) and type(v) in (int, float) and abs(v) < 1e300]
    return found or None


def text_in(mapping: Mapping[str, Any], name: str) -> str:
    """A field that holds a text or nothing. Raises Skip for anything else."""
    value = mapping.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Skip("unknown_shape")
    return value


def has(mapping: Mapping[str, Any], name: str) -> bool:
    """Whether a field says something. vLLM writes out empty fields as null or []."""
    return mapping.get(name) not in (None, "", [], {}, False)


def as_name(value: Any) -> str | None:
    # A NUL is valid JSON, but PostgreSQL keeps no text with one; what names a thing never has one.
    is_name = isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and "\x00" not in value
    return value if is_name else None


def count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None
