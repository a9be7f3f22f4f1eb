"""One shape for every error: {"error": {"message", "type", "code", "where"?}}.

`type` says whose fault it is, `code` is one word for programs. Which exception becomes which answer
stands in one table; what is in no table is a bug of ours, and is answered 500 and logged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from spex_proxy.facts.errors import (
    BadEvidence,
    CannotExplain,
    NotFound,
    PluginError,
    SettingsError,
    SpexError,
    TooBroad,
    VerificationFailed,
)
from spex_proxy.facts.records import ErrorRecord
from spex_proxy.store.connect import StoreError

RETRY_S = 5
"""What Retry-After says where trying again may help."""

UNSTORABLE = re.compile("[\ud800-\udfff]")


class Refused(SpexError):
    """A request that the API says no to, with its status and code."""

    def __init__(self, status: int, code: str, message: str, where: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.where = status, code, where


ANSWERS: tuple[tuple[type[Exception], int, str], ...] = (
    (NotFound, 404, "not_found"),
    (CannotExplain, 409, "cannot_explain"),
    (VerificationFailed, 409, "damaged"),
    (BadEvidence, 409, "bad_evidence"),
    (PluginError, 409, "plugin"),
    (TooBroad, 400, "too_broad"),
    (SettingsError, 503, "store_unavailable"),
    (StoreError, 503, "store_unavailable"),
    (SpexError, 400, "refused"),
)
"""The first line that fits, counts. A store that can't be opened is a SettingsError, one that fails a StoreError."""

HTTP_CODES = {404: "no_such_path", 405: "method_not_allowed"}

CODES = frozenset(
    {code for _, _, code in ANSWERS}
    | set(HTTP_CODES.values())
    | {"invalid_request", "conflict", "too_many_streams", "busy", "foreign_page", "bad_request", "internal"}
)
"""Every `code` there is."""


def error_response(
    status: int, code: str, message: str, where: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    fault = {
        "message": printable(message),
        "type": "invalid_request_error" if status < 500 and status != 429 else "server_error",
        "code": code,
    }
    if where is not None:
        fault["where"] = printable(where)
    more = dict(headers or {})
    if status in (429, 503):
        more["Retry-After"] = str(RETRY_S)
    body = json.dumps({"error": fault}, ensure_ascii=False).encode()
    return Response(body, status, more, media_type="application/json")


def printable(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair, which JSON may carry, becomes U+FFFD."""
    return UNSTORABLE.sub("\ufffd", text)


def install(app: FastAPI) -> None:
    """Let the application answer every error in the one shape."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in {kind for kind, _, _ in ANSWERS}:
        app.add_exception_handler(kind, _ours)
    app.add_exception_handler(Exception, _bug)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: which errors it may answer with, beside 503 for a store that is down."""
    said = {
        400: "The request can't be read.",
        403: "Asked for by a page of another site.",
        404: "Nothing has this id, or more than one thing does; the message says what to try.",
        409: "What is stored does not allow it; the message says why.",
        422: "A parameter or field makes no sense; `where` names it.",
        429: "Too much of this is going on already; try again after `Retry-After` seconds.",
        503: "The store can't be reached; production is not affected.",
    }
    return {status: {"model": ErrorRecord, "description": said[status]} for status in sorted({*statuses, 403, 503})}


async def _ours(_request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        return error_response(error.status, error.code, str(error), error.where)
    status, code = next((status, code) for kind, status, code in ANSWERS if isinstance(error, kind))
    message = str(error)
    if isinstance(error, StoreError):  # its text quotes statements and what was bound to them
        message = f"the store can't be used now ({type(error).__name__}); production is not affected"
    return error_response(status, code, message)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = _where(first["loc"])
    return error_response(422, "invalid_request", f"{where}: {first['msg'].removeprefix('Value error, ')}", where)


def _where(place: Sequence[Any]) -> str:
    return ".".join(str(part) for part in place)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "bad_request")
    message = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not possible at {request.url.path}",
    }.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405 and (methods := _methods(request)):
        headers["Allow"] = ", ".join(methods)
    return error_response(error.status_code, code, message, headers=headers)


def _methods(request: Request) -> list[str]:
    """All that a documented path can do: each method is a route of its own, and the router names the first's only."""
    found = (
        item
        for path, item in request.app.openapi()["paths"].items()
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)), request.url.path)
    )
    return sorted({method.upper() for item in found for method in item})


async def _bug(_request: Request, error: Exception) -> Response:
    return error_response(500, "internal", f"a bug in spex-proxy: {type(error).__name__}; its log holds the rest")
