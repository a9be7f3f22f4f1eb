"""How a base URL is reached: over TCP, TLS with one's own authorities, or a unix socket."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx

from spex_proxy.facts.errors import SettingsError

UNIX = "unix:"
"""Begins the address of a unix socket: `unix:/run/vllm.sock`, with as many slashes as one likes."""


def unix_path(address: str) -> str | None:
    """The path of a unix socket's address; None if it is another kind of address."""
    return "/" + address.removeprefix(UNIX).lstrip("/") if address.startswith(UNIX) else None


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """Certificates are checked by the authorities in a PEM file; without one by the system's, or those of
    SSL_CERT_FILE: OpenSSL's own rule. Raises SettingsError if the file holds none."""
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"upstream_ca (SPEX_UPSTREAM_CA): no certificates in {ca}: {error}") from error


def client_for(base_url: str, ca: Path | None, limits: httpx.Limits | None = None, **options: Any) -> httpx.AsyncClient:
    """An HTTP client of one address; paths are relative to it."""
    path = unix_path(base_url)
    transport = httpx.AsyncHTTPTransport(
        verify=tls_context(ca) if base_url.startswith("https:") else False,
        uds=path,
        limits=limits or httpx.Limits(),
        trust_env=False,
    )
    return httpx.AsyncClient(
        base_url=base_url.rstrip("/") if path is None else "http://localhost",
        transport=transport, trust_env=False, **options,
    )  # fmt: skip
