"""RawExchange -> Exchange, or the reason why not, for all that is spoken on the four paths.

    bytes -> body.unpack -> body.read_object -> prompt.*, responses.*, messages.*    texts, token ids that were sent
                                             -> answer.*, responses.*, messages.*    choices, usage, token ids

Nothing of what a client or a server may send raises here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spex_proxy.facts.errors import BadReply
from spex_proxy.facts.exchange import Exchange, ExchangeKind, Headers, Message, RawExchange, Skipped
from spex_proxy.wire import messages, responses
from spex_proxy.wire.answer import Answer, as_name, read_answer, read_stream
from spex_proxy.wire.body import read_object, unpack
from spex_proxy.wire.prompt import Text, read_messages, read_prompt, refuse_unexplainable, with_text
from spex_proxy.wire.tap import Skip

KINDS: dict[str, ExchangeKind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/responses": "response",
    "/v1/messages": "message",
}
"""Path -> what is spoken there: the paths that can be understood, and so are worth watching."""


def parse(raw: RawExchange, project: str = "default") -> Exchange | Skipped:
    """Understand one exchange. Every reason is one of wire.tap.SKIP_REASONS."""
    try:
        return _understand(raw, project)
    except Skip as skip:
        return Skipped(raw.head.id, skip.reason)


def _understand(raw: RawExchange, project: str) -> Exchange:
    kind = KINDS.get(raw.head.path)
    if kind is None:
        raise Skip("unknown_shape")
    if raw.status != 200:
        raise Skip("upstream_error")
    request = read_object(unpack(raw.request_body, raw.head.headers, too_large="too_large_request"))
    refuse_unexplainable(request)
    texts, sent_ids = _asked(kind, request)
    streamed = _is_event_stream(raw.response_headers)
    body = unpack(raw.response_body, raw.response_headers, too_large="too_large_answer")
    answer = _said(kind, body, streamed)
    first = answer.choices[0]
    is_stored = kind == "response" and responses.needs_stored_context(request)
    return Exchange(
        id=raw.head.id,
        project=project,
        kind=kind,
        model=answer.model or as_name(request.get("model")) or "",
        messages=texts,
        output_text=first.text,
        finish_reason=first.finish_reason,
        upstream_id=answer.upstream_id,
        streamed=streamed,
        received_at=raw.head.received_at,
        first_byte_s=raw.first_byte_s,
        duration_s=raw.duration_s,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        capture_probability=raw.capture_probability,
        request=request,
        prompt_ids=answer.prompt_ids or sent_ids,
        output_ids=answer.output_ids,
        choices=answer.choices,
        usage=answer.usage,
        obstacle="stored_context" if is_stored else answer.obstacle(),
    )


def _asked(kind: ExchangeKind, request: dict[str, Any]) -> tuple[tuple[Message, ...], tuple[int, ...] | None]:
    """The prompt's texts, or the ids that it was sent as."""
    if kind == "completion":
        return read_prompt(request)
    if kind == "chat":
        return read_messages(request), None
    return with_text(tuple(message for message, _ in native_texts(kind, request))), None


def native_texts(kind: ExchangeKind, request: Mapping[str, Any]) -> list[Text]:
    """Of `/v1/responses` and `/v1/messages`: the prompt's texts, and where the request holds each. Raises Skip."""
    try:
        return responses.read_texts(request) if kind == "response" else messages.read_texts(request)
    except RecursionError:
        raise Skip("not_json") from None


def read_plain(kind: ExchangeKind, body: bytes) -> Answer:
    """An answer in one piece. Raises BadReply for one that is none, or ended badly."""
    try:
        return _said(kind, body, streamed=False)
    except Skip as skip:
        raise BadReply(f"the server's answer can't be read: {skip.reason}") from skip


def _said(kind: ExchangeKind, body: bytes, streamed: bool) -> Answer:
    if kind == "response":
        return responses.read_stream(body) if streamed else responses.read_answer(body)
    if kind == "message":
        return messages.read_stream(body) if streamed else messages.read_answer(body)
    return read_stream(kind, body) if streamed else read_answer(kind, body)


def _is_event_stream(headers: Headers) -> bool:
    """By what the server says it sent, not by what the client asked for."""
    return any(name == b"content-type" and value.lower().startswith(b"text/event-stream") for name, value in headers)
