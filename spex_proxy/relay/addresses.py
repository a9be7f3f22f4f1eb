"""Where things listen: base URLs of upstreams as parts."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from spex_proxy.facts.errors import SettingsError
from spex_proxy.ports.reach import unix_path


@dataclass(frozen=True, slots=True)
class Address:
    """One upstream."""

    url: str
    host: str
    """Or the path of a unix socket."""
    port: int
    """0 for a unix socket."""
    is_tls: bool
    authority: bytes
    """What stands in `Host`."""
    prefix: bytes
    """Path before every target; usually empty."""

    @property
    def is_unix(self) -> bool:
        return not self.port


def read_address(url: str) -> Address:
    """Raises SettingsError."""
    path = unix_path(url)
    if path is not None:
        return Address(url, path, 0, False, b"localhost", b"")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"the upstream's address {url!r} can't be read: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"the upstream must be http://HOST[:PORT], https://... or unix:/PATH, not {url!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError("the upstream's address can't hold a user, a password, a query or a fragment")
    is_tls = parts.scheme == "https"
    try:
        authority, prefix = parts.netloc.encode("idna" if not parts.netloc.isascii() else "ascii"), parts.path
        return Address(
            url, parts.hostname, port or (443 if is_tls else 80), is_tls, authority, prefix.rstrip("/").encode("ascii")
        )
    except UnicodeError as error:
        raise SettingsError(f"the upstream's address {url!r} must be ASCII: {error}") from error
