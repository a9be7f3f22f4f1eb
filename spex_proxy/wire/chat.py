"""Chat completions and completions: RawExchange -> Exchange, or the reason why not.

    bytes -> body.unpack -> body.read_object -> prompt.*   messages, token ids that were sent
                                             -> answer.*   text, finish reason, usage, token ids

Nothing of what a client or a server may send raises here.
"""

from __future__ import annotations

from spex_proxy.facts.exchange import Exchange, ExchangeKind, Headers, RawExchange, Skipped
from spex_proxy.wire.answer import as_name, read_answer, read_stream
from spex_proxy.wire.body import read_object, unpack
from spex_proxy.wire.prompt import read_messages, read_prompt, refuse_unexplainable
from spex_proxy.wire.tap import Skip

KINDS: dict[str, ExchangeKind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
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
    messages, sent_ids = (read_messages(request), None) if kind == "chat" else read_prompt(request)
    streamed = _is_event_stream(raw.response_headers)
    body = unpack(raw.response_body, raw.response_headers, too_large="too_large_answer")
    answer = read_stream(kind, body) if streamed else read_answer(kind, body)
    return Exchange(
        id=raw.head.id,
        project=project,
        kind=kind,
        model=answer.model or as_name(request.get("model")) or "",
        messages=messages,
        output_text=answer.text,
        finish_reason=answer.finish_reason,
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
    )


def _is_event_stream(headers: Headers) -> bool:
    """By what the server says it sent, not by what the client asked for."""
    return any(name == b"content-type" and value.lower().startswith(b"text/event-stream") for name, value in headers)
