"""What both clients share of httpx: how a call becomes a request, and a response or its failure a reply."""

from __future__ import annotations

from typing import Any

import httpx

from spex_proxy.client.calls import Call
from spex_proxy.client.reading import Reply, retry_after
from spex_proxy.facts.errors import UpstreamBusy, UpstreamError


def request_of(http: httpx.Client | httpx.AsyncClient, base: str, call: Call[Any]) -> httpx.Request:
    return http.build_request(
        call.method,
        base + call.path,
        params=dict(call.params),
        json=call.body,
        headers=dict(call.headers),
        timeout=call.timeout_s,
    )


def reply_of(response: httpx.Response) -> Reply:
    """`body` is empty while the response is a stream that is still open."""
    body = response.content if response.is_closed else b""
    return Reply(response.status_code, body, retry_after(response.headers.get("retry-after")))


def failed(error: httpx.HTTPError, call: Call[Any]) -> Reply:
    """No answer: said as one of our own errors, worth another try."""
    what = str(error) or type(error).__name__
    return Reply(0, b"", failure=UpstreamBusy(f"{call.method} {call.path}: spex-proxy can't be reached: {what}"))


def broken(error: httpx.HTTPError) -> UpstreamError:
    """A stream that ended before its end: what it brought is not the whole."""
    return UpstreamError(f"the answer broke off: {str(error) or type(error).__name__}")
