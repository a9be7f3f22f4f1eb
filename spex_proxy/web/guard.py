"""Against pages of other sites in the operator's browser, which can reach a port on loopback as well.

- A site whose name resolves to 127.0.0.1 ("DNS rebinding") could read prompts as its own content. So while
  the port listens on loopback, what it holds is shown under IP addresses and `localhost` only, and under the
  names that the operator allows. Those bind a port that listens elsewhere as well: in a container it listens
  on 0.0.0.0, and is published on the host's loopback.
- A form of another site could start or cancel jobs blindly. So a request that changes something and
  comes from a page, comes from a page of this same address.

Health and metrics are free of both: probes call them by any name. This is no access control, which a port
that is opened to a network needs besides.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from spex_proxy.web.errors import error_response

GUARDED = "/spex"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, is_loopback: bool, names: Collection[str] = ()) -> None:
        """`names`: hosts that the port is reached under, besides numbers and `localhost`. Without any, a port that
        is open to a network has whatever name it is called by."""
        self._app, self._is_bound = app, is_loopback or bool(names)
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" and scope["path"].startswith(GUARDED) else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await error_response(403, "foreign_page", refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._is_bound and not (_is_safe_name(host) or _name(host) in self._names):
            return (
                f"this port shows its content as localhost, under an IP address or under a name in SPEX_ADMIN_NAMES, "
                f"not as {host!r}"
            )
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
        ipaddress.ip_address(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return _name(host) == "localhost"
    return True


def _name(host: str) -> str:
    return host.partition(":")[0].lower()
