"""The answers that are ours and not the upstream's: OpenAI's error shape, and a header that says so."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """An error of the proxy itself."""

    status: int
    reason: str
    code: str
    message: str
    type: str = "proxy_error"

    def to_bytes(self, *, closes: bool, is_head: bool = False) -> bytes:
        """The whole answer; `is_head`: to a HEAD request, which gets no body."""
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        body = json.dumps({"error": error}).encode()
        head = [
            f"HTTP/1.1 {self.status} {self.reason}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-spex-error: {self.code}",
            *(["connection: close"] if closes else []),
        ]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + (b"" if is_head else body)


UNREACHABLE = OwnAnswer(
    502, "Bad Gateway", "upstream_unreachable", "spex_proxy can't connect to the model server; is it running?"
)
DISCONNECTED = OwnAnswer(
    502, "Bad Gateway", "upstream_disconnected", "The model server closed the connection before it answered."
)
INVALID = OwnAnswer(502, "Bad Gateway", "upstream_invalid_answer", "What the model server answered is not valid HTTP.")
NO_FILES = OwnAnswer(
    503, "Service Unavailable", "too_many_open_files",
    "spex_proxy may open no more connections; raise its limit of open files (ulimit -n).",
)  # fmt: skip
RELAY_FAULT = OwnAnswer(
    500, "Internal Server Error", "relay_fault", "spex_proxy failed to relay this request; its log says why."
)
TARGET = OwnAnswer(
    501, "Not Implemented", "target_not_relayed", "Only request targets that begin with a slash are relayed."
)
TOO_LONG = OwnAnswer(
    431, "Request Header Fields Too Large", "head_too_long", "The request's head is longer than 64 KiB.",
    "invalid_request_error",
)  # fmt: skip


def bad_request(why: str) -> OwnAnswer:
    """The request could be read in more than one way, or in none; it goes nowhere."""
    return OwnAnswer(
        400, "Bad Request", "ambiguous_request", f"The request is not valid HTTP/1.1: {why}.", "invalid_request_error"
    )


def answer_for(error: BaseException) -> OwnAnswer:
    """Why no connection could be had. The one place where such errors are read."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return NO_FILES
    return UNREACHABLE if isinstance(error, (OSError, TimeoutError)) else RELAY_FAULT
