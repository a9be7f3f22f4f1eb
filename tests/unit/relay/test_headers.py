"""Which header lines pass, and how the relay is set up."""

from __future__ import annotations

import asyncio
import socket

import pytest

from spex_proxy.facts.errors import SettingsError
from spex_proxy.flows.relay import Sampler, Watcher
from spex_proxy.ports.counters import Counters
from spex_proxy.relay import make_app, serve
from spex_proxy.relay.headers import to_client, to_upstream
from spex_proxy.wire.tap import TapBudget, TapLimits

WATCHER = Watcher(Sampler(0.0, 0.0, b"s"), TapLimits(), TapBudget(0), lambda _: True)


def test_towards_the_upstream() -> None:
    lines = [
        (b"host", b"proxy"),
        (b"connection", b"close, X-Hop"),
        (b"x-hop", b"1"),
        (b"expect", b"100-continue"),
        (b"x-spex-explain", b"yes"),
        (b"accept", b"*/*"),
        (b"x-two", b"1"),
        (b"x-two", "é".encode()),
        (b"x-old", b"\xe9"),
    ]
    assert to_upstream(lines) == [("accept", "*/*"), ("x-two", "1"), ("x-two", "é"), ("x-old", "é")]


def test_towards_the_client() -> None:
    lines = [(b"Content-Length", b"3"), (b"Keep-Alive", b"x"), (b"Connection", b"x-hop"), (b"X-Hop", b"1")]
    lines += [(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"), (b"Server", b"uvicorn")]
    passed = [(b"content-length", b"3"), (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"server", b"uvicorn")]
    assert to_client(lines, 200) == passed
    assert to_client(lines, 304) == passed[1:]


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8000", "ftp://host", "http://", "http://user:pw@host", "http://host?x=1", "http://host#x"],
)
def test_addresses_that_cannot_work_are_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="upstream"):
        make_app(address, WATCHER, Counters())


async def test_a_taken_port_is_an_error_and_no_exit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = make_app("http://127.0.0.1:1", WATCHER, Counters())
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}"):
            await serve(app, "127.0.0.1", port, stop=asyncio.Event())
