"""Sockets: bound for listening, and set up the way a relay wants them."""

from __future__ import annotations

import asyncio
import socket
import stat
import struct
from pathlib import Path

from spex_proxy.facts.errors import SettingsError
from spex_proxy.ports.reach import unix_path

# A peer that vanished without a word (its host died, a cable) is noticed after about two minutes.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


def tune(transport: asyncio.BaseTransport) -> int:
    """TCP_NODELAY, or every second small write waits for an acknowledgement (40 ms); the descriptor."""
    sock = transport.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):  # some platforms lack some
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    fd: int = sock.fileno()
    return fd


def reset(transport: asyncio.Transport) -> None:
    """Close so that the peer can't take it for a good end."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def listen_on(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """A bound socket; `host` may be `unix:/path`. `is_shared`: other processes listen there too.

    Raises SettingsError if the address can't be had.
    """
    path = unix_path(host)
    try:
        if path is not None:
            return _unix_listener(path)
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"can't listen on {where(host, port)}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SettingsError(f"can't listen on {where(host, port)}: {error}") from error
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """Hold a port for processes that share it, without listening there. Port 0 takes a free one.

    Raises SettingsError if the address can't be had: also where others share it already, which would take requests
    from us in silence.
    """
    listen_on(host, port).close()
    return listen_on(host, port, is_shared=True)


def where(host: str, port: int) -> str:
    return host if unix_path(host) is not None else f"{host}:{port}"


def _unix_listener(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale_socket(path):
            Path(path).unlink()
        listener.bind(path)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _is_stale_socket(path: str) -> bool:
    """A socket that a dead process left behind, which would be in the way."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False
