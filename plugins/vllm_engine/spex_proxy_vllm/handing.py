"""A finished exchange as it is handed over: one line of JSON, then the request's bytes, then the answer's. Pure.

`golden/handover.json` holds one, which both test suites compare with. Headers whose names sound like secrets stay
here, but for spex_proxy's own key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spex_proxy_vllm import HANDOVER

Headers = Sequence[tuple[bytes, bytes]]
PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
"""What spex_proxy can understand; everything else passes unseen."""
_SECRET_WORDS = (b"auth", b"cookie", b"key", b"token", b"secret", b"passw", b"credential", b"signature")
_OUR_KEY = b"x-spex-key"


@dataclass(frozen=True, slots=True)
class Finished:
    """What passed, whole."""

    id: str
    method: str
    path: str
    received_at: str
    """ISO 8601, UTC."""
    headers: Headers
    """Lower-case names, in order."""
    status: int
    response_headers: Headers
    first_byte_s: float
    """Since `received_at`."""
    duration_s: float
    ending: str
    """`complete`, `client_gone` or `upstream_broken`."""
    request_body: bytes
    answer: bytes

    @property
    def size(self) -> int:
        return len(self.request_body) + len(self.answer)


def pack(finished: Finished, lost: Mapping[str, int]) -> bytes:
    """`lost`: what was not handed over since the last time, by reason."""
    told = {
        "protocol": HANDOVER,
        "id": finished.id,
        "method": finished.method,
        "path": finished.path,
        "received_at": finished.received_at,
        "headers": _lines(finished.headers),
        "status": finished.status,
        "response_headers": _lines(finished.response_headers),
        "first_byte_s": finished.first_byte_s,
        "duration_s": finished.duration_s,
        "ending": finished.ending,
        "request_bytes": len(finished.request_body),
        "lost": dict(lost),
    }
    return b"".join((json.dumps(told).encode("ascii"), b"\n", finished.request_body, finished.answer))


def _lines(headers: Headers) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers if not is_secret(name)]


def is_secret(name: bytes) -> bool:
    """Whether a header of this name stays here."""
    lower = name.lower()
    return lower != _OUR_KEY and any(word in lower for word in _SECRET_WORDS)
