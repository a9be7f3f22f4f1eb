"""How a relay is set up: upstreams' addresses, and the port it listens on."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from spex_proxy.facts.errors import SettingsError
from spex_proxy.ports.counters import Counters
from spex_proxy.relay import House, serve
from spex_proxy.relay.addresses import read_address
from spex_proxy.relay.replicas import Replica, choose
from spex_proxy.relay.sockets import listen_on
from tests.story.running import Nobody


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8000", "ftp://host", "http://", "http://user:pw@host", "http://host?x=1", "http://host#x"],
)
def test_addresses_that_cannot_work_are_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="upstream"):
        House([address], Nobody(), Counters())


def test_addresses() -> None:
    plain = read_address("http://[::1]:8000/base/")
    assert (plain.host, plain.port, plain.is_tls) == ("::1", 8000, False)
    assert (plain.authority, plain.prefix) == (b"[::1]:8000", b"/base")
    tls = read_address("https://models.example")
    assert (tls.port, tls.is_tls, tls.authority, tls.prefix) == (443, True, b"models.example", b"")
    for spelled in ("unix:/run/v.sock", "unix:///run/v.sock"):
        assert read_address(spelled).is_unix
        assert read_address(spelled).host == "/run/v.sock"


async def test_a_taken_port_is_an_error_and_no_exit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        house = House(["http://127.0.0.1:1"], Nobody(), Counters())
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}"):
            await serve(house, "127.0.0.1", port, stop=asyncio.Event())


def test_a_dead_process_s_unix_socket_is_taken_over_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/relay.sock"
    listen_on(path, 0).close()  # the file stays behind
    with listen_on(path, 0) as living:
        living.listen()
        with pytest.raises(SettingsError, match=r"relay\.sock"):
            listen_on(path, 0)
    (tmp_path / "file").write_text("not a socket")
    with pytest.raises(SettingsError, match="file"):
        listen_on(f"unix:{tmp_path}/file", 0)
    assert (tmp_path / "file").read_text() == "not a socket"


def replica(in_flight: int, *, is_down: bool = False) -> Replica:
    return Replica(read_address("http://h"), in_flight=in_flight, is_down=is_down)


def test_the_least_busy_upstream_is_chosen() -> None:
    busy, free, down = replica(3), replica(1), replica(0, is_down=True)
    assert all(choose((busy, free, down), (), turn) is free for turn in range(3))
    assert choose((busy, free, down), (free,), 0) is busy
    assert choose((busy, free, down), (free, busy), 0) is down
    assert choose((busy, free, down), (free, busy, down), 0) is None


def test_ties_go_round() -> None:
    three = (replica(0), replica(0), replica(0))
    assert {id(choose(three, (), turn)) for turn in range(3)} == {id(one) for one in three}
