"""Against pages of other sites in the operator's browser, which can reach a port on loopback as well.

- A site whose name resolves to 127.0.0.1 ("DNS rebinding") could read prompts as its own content. So while
  the port listens on loopback, what it holds is shown under IP addresses and `localhost` only.
- A form of another site could start or cancel jobs blindly. So a request that changes something and
  comes from a page, comes from a page of this same address.

Health and metrics are free of both: probes call them by any name. This is no access control, which a port
that is opened to a network needs besides.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from spex_proxy.web.errors import error_response

GUARDED = "/spex"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, is_loopback: bool) -> None:
        self._app, self._is_loopback = app, is_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" and scope["path"].startswith(GUARDED) else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await error_response(403, "foreign_page", refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._is_loopback and not _is_safe_name(host):
            return f"this port shows its content as localhost or under an IP address, not as {host!r}"
        origin = headers.get(b"origin")
        if scope["method"] not in _SAFE and origin is not None and urlsplit(origin).netloc != host:
            return f"a page of {origin!r} may not change anything here"
        return None


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_safe_name(host: str) -> bool:
    """`host` as in the header, with or without a port. Nobody can rebind a number, or localhost."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return host.partition(":")[0].lower() == "localhost"
    return True
