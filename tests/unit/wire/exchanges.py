"""Raw exchanges for tests, after what vLLM 0.32 sends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from spex_proxy.facts.exchange import Headers, RawExchange, RequestHead

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
SSE: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"),)
JSON: Headers = ((b"content-type", b"application/json"),)


def head(path: str = CHAT, headers: Headers = ()) -> RequestHead:
    return RequestHead("id-1", "POST", path, headers, datetime(2026, 11, 22, tzinfo=UTC))


def raw(
    request: Any = ASKED,
    answer: Any = None,
    *,
    path: str = CHAT,
    status: int = 200,
    sent_headers: Headers = (),
    headers: Headers = JSON,
) -> RawExchange:
    return RawExchange(
        head=head(path, sent_headers),
        request_body=request if isinstance(request, bytes) else json.dumps(request).encode(),
        status=status,
        response_headers=headers,
        response_body=answer if isinstance(answer, bytes) else json.dumps(answer).encode(),
        first_byte_s=0.1,
        duration_s=0.5,
        capture_probability=1.0,
        explain_wish=None,
    )


def reply(message: Any, **choice: Any) -> dict[str, Any]:
    """A plain chat answer, with the nulls that vLLM writes out."""
    return {
        "id": "chatcmpl-8a2b",
        "object": "chat.completion",
        "model": "m-served",
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "token_ids": None} | choice
        ],
        "usage": {"prompt_tokens": 31, "total_tokens": 35, "completion_tokens": 4},
        "prompt_logprobs": None,
        "prompt_token_ids": None,
    }


def said(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "refusal": None, "function_call": None, "reasoning": None}


def stream(*chunks: Any, done: bool = True) -> bytes:
    events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return b"".join(events) + (b"data: [DONE]\n\n" if done else b"")


def delta(text: str | None = None, finish_reason: str | None = None, **choice: Any) -> dict[str, Any]:
    piece = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish_reason}
    return {"id": "chatcmpl-9", "model": "m", "choices": [piece | choice]}
