"""The files that pages load, and the headers that all of it is sent with.

Everything comes from this process: no other host, no inline script, no inline style. A file's address
holds a digest of all files, so browsers keep it for ever and a new version is a new address.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request, Response

from spex_proxy.study.html import ASSETS

STATIC = Path(__file__).parent / "static"

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
GUARDS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
PAGE_HEADERS: Mapping[str, str] = {**GUARDS, "Cache-Control": "no-store"}
"""Pages hold people's texts: no copy of them stays in a cache."""

FOR_EVER = "public, max-age=31536000, immutable"
NOW_ONLY = "no-cache"


@dataclass(frozen=True, slots=True)
class Assets:
    """All files, read once, and the digest that names this set of them."""

    version: str
    files: Mapping[str, bytes]

    @classmethod
    def load(cls) -> Assets:
        paths = sorted(path for folder in (ASSETS, STATIC) for path in folder.iterdir() if path.suffix in TYPES)
        files = {path.name: path.read_bytes() for path in paths}
        if len(files) != len(paths):
            raise AssertionError("two files that pages load have the same name")
        digest = hashlib.sha256(b"".join(name.encode() + b"\0" + body for name, body in files.items()))
        return cls(digest.hexdigest()[:12], files)

    def respond(self, request: Request, version: str, name: str) -> Response:
        """The file; 404 if there is none, 304 if the browser has it. An old address gets the file of today."""
        body = self.files.get(name)
        if body is None:
            return Response("there is no such file", 404, PAGE_HEADERS, media_type="text/plain; charset=utf-8")
        tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        cached = FOR_EVER if version == self.version else NOW_ONLY
        headers = {**GUARDS, "Cache-Control": cached, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, 200, headers, media_type=TYPES[Path(name).suffix])
