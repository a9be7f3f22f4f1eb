"""Ways to an upstream, and to the relay: TLS with one's own authority, unix sockets, several replicas. Real sockets."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spex_proxy.facts.errors import SettingsError
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.look import Answer, Looker
from spex_proxy.ports.model_server import ModelServer
from spex_proxy.ports.model_servers import ModelServers, preference
from spex_proxy.relay import House
from spex_proxy.settings import Settings
from spex_proxy.wiring.self_test import self_test
from tests.story.raw_client import RawClient, ask, chat_request
from tests.story.running import Nobody, relay
from tests.story.test_self_test import Model, examined
from tests.story.upstream import CLOSE, HANG, LAST_CHUNK, Upstream, answer, chunk, eventually, stream_head

ASK = chat_request(b'{"messages": []}')
EVENT = b"data: {}\n\n"
OK = answer(b"{}")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority (`ca.pem`), a certificate for 127.0.0.1 that it signed, and an authority of somebody else."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl(*new, "-subj", "/CN=ours", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=theirs", "-keyout", "other.key", "-out", "other.pem")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1")
    openssl(*new, "-subj", "/CN=upstream", *signed, "-keyout", "server.key", "-out", "server.pem")
    return folder


@pytest.fixture(scope="module")
def tls(certificates: Path) -> Iterator[Upstream]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    with Upstream(tls=context) as server:
        yield server
        eventually(lambda: server.live == 0)


# ---- TLS


def test_over_tls(tls: Upstream, certificates: Path) -> None:
    """An answer, a stream, an upload, and a client that leaves."""
    with relay(tls.url, ca=certificates / "ca.pem") as proxy, RawClient(proxy.port) as client:
        tls.answers(OK)
        client.send(chat_request(b"x" * 1_000_000))
        assert client.read_answer().body == b"{}"
        assert tls.requests[0].body == b"x" * 1_000_000
        tls.answers(stream_head(), chunk(EVENT), chunk(EVENT), LAST_CHUNK)
        client.send(ASK)
        assert client.read_answer().body == EVENT * 2
        tls.answers(stream_head(), chunk(EVENT), HANG)
        client.send(ASK)
        client.read_head()
        assert client.read_chunk() == EVENT
        client.leave()
        eventually(lambda: tls.live == 0)


@pytest.mark.parametrize("authority", ["other.pem", None])
def test_a_certificate_that_nobody_of_ours_signed(tls: Upstream, certificates: Path, authority: str | None) -> None:
    tls.answers(OK)
    with relay(tls.url, ca=certificates / authority if authority else None) as proxy:
        refused = ask(proxy.port, ASK)
    assert (refused.status, refused.value(b"x-spex-error")) == (502, b"upstream_unreachable")
    assert tls.requests == []


def test_a_certificate_of_another_host(tls: Upstream, certificates: Path) -> None:
    tls.answers(OK)
    with relay(tls.url.replace("127.0.0.1", "localhost"), ca=certificates / "ca.pem") as proxy:
        assert ask(proxy.port, ASK).status == 502
    assert tls.requests == []


@pytest.mark.parametrize("content", [None, "no certificates"])
def test_a_file_without_certificates_is_refused_at_once(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    with pytest.raises(SettingsError, match=r"SPEX_UPSTREAM_CA.*ca\.pem"):
        House(["https://127.0.0.1:1"], Nobody(), Counters(), ca=tmp_path / "ca.pem")


async def test_background_work_and_the_self_test_over_tls(
    tls: Upstream, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spex_proxy.flows.self_test.ROUNDS", 2)
    tls.answers_by(Model().respond)
    ca = certificates / "ca.pem"
    async with Looker(ca=ca) as looker:
        assert isinstance(await looker.get(tls.url, "/v1/models"), Answer)
    settings = Settings(upstream=tls.url, upstream_ca=ca)
    async with self_test(settings, tls.url, None) as test:
        found = await examined(test.examine())
    assert {found[name].level for name in ("JSON", "SSE", "errors")} == {"ok"}
    async with ModelServer(tls.url, ca=ca) as ours, ModelServer(tls.url, ca=certificates / "other.pem") as others:
        assert await ours.is_up()
        assert not await others.is_up()


# ---- unix sockets


def test_over_a_unix_socket(tmp_path: Path) -> None:
    with Upstream(path=str(tmp_path / "v.sock")) as upstream, relay(upstream.url) as proxy:
        upstream.answers(OK)
        with RawClient(proxy.port) as client:
            for _ in range(2):
                client.send(ASK)
                assert client.read_answer().body == b"{}"
        assert upstream.requests[0].values(b"host") == [b"localhost"]
        upstream.answers(HANG)
        with RawClient(proxy.port) as client:
            client.send(ASK)
            eventually(lambda: upstream.live == 1)
        eventually(lambda: upstream.live == 0)


def test_apps_may_come_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "relay.sock")
    with Upstream() as upstream, relay(upstream.url, host=f"unix:{path}"):
        upstream.answers(stream_head(), chunk(EVENT), LAST_CHUNK)
        with RawClient(0, path=path) as client:
            for _ in range(2):
                client.send(ASK)
                assert client.read_answer().body == EVENT


async def test_background_work_and_the_self_test_over_a_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spex_proxy.flows.self_test.ROUNDS", 2)
    with Upstream(path=str(tmp_path / "v.sock")) as upstream:
        upstream.answers_by(Model().respond)
        async with self_test(Settings(upstream=upstream.url), upstream.url, None) as test:
            found = await examined(test.examine())
        assert {found[name].level for name in ("JSON", "SSE", "errors")} == {"ok"}
        assert "of 3" in found["aborts"].found
        async with ModelServer(upstream.url) as server:
            assert await server.is_up()
        eventually(lambda: upstream.live == 0)


# ---- replicas


def nobody() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_the_least_busy_replica_gets_the_request() -> None:
    with Upstream() as one, Upstream() as other, relay(one.url, other.url) as proxy:
        gates = [one.gate(), other.gate()]
        one.answers(gates[0], OK)
        other.answers(gates[1], OK)
        clients = [RawClient(proxy.port) for _ in range(10)]
        for number, client in enumerate(clients):
            client.send(ASK)
            eventually(lambda n=number: one.live + other.live == n + 1)
        assert (one.live, other.live) == (5, 5)
        gates[0].open()
        eventually(lambda: one.live == 0)
        one.answers(HANG)
        more = [RawClient(proxy.port) for _ in range(5)]
        for number, client in enumerate(more):
            client.send(ASK)
            eventually(lambda n=number: one.live == n + 1)  # all to the one that has fewer under way
        gates[1].open()
        for client in clients:
            assert client.read_answer().status == 200
        for client in [*clients, *more]:
            client.leave()
        eventually(lambda: one.live + other.live == 0)


def test_a_replica_that_is_down_gets_nothing_and_nobody_notices() -> None:
    with Upstream() as upstream, relay(nobody(), upstream.url) as proxy:
        upstream.answers(OK)
        assert all(ask(proxy.port, ASK).status == 200 for _ in range(10))
        assert proxy.counters.snapshot()["relayed_requests"] == {"2xx": 10}


def test_what_was_sent_to_one_is_not_sent_to_another() -> None:
    """A replica that takes a request and closes: the client is told, and may ask again itself."""
    with Upstream() as one, Upstream() as other, relay(one.url, other.url) as proxy:
        one.answers(CLOSE)
        other.answers(CLOSE)
        assert ask(proxy.port, ASK).value(b"x-spex-error") == b"upstream_disconnected"
        assert len(one.requests) + len(other.requests) == 1


async def test_an_explanation_stays_with_its_replica_while_that_is_up() -> None:
    with Upstream() as one, Upstream() as other:
        for server in (one, other):
            server.answers(answer(b'{"version": "0.32.0"}'))
        async with ModelServers([one.url, other.url, nobody()]) as servers:
            chosen = {id_: (await servers.choose(id_)).base_url for id_ in map(str, range(20))}
            assert set(chosen.values()) == {one.url, other.url}
            assert all([(await servers.choose(id_)).base_url == url for id_, url in chosen.items()])
            one.answers(answer(b"", status="503 Service Unavailable"))
            assert {(await servers.choose(id_)).base_url for id_ in chosen} == {other.url}


@given(
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True), st.text(max_size=8), st.integers(0)
)
def test_a_replica_that_goes_moves_no_other_exchange(urls: list[str], exchange: str, gone: int) -> None:
    order = [urls[place] for place in preference(exchange, urls)]
    assert sorted(order) == sorted(urls)
    lost = urls[gone % len(urls)]
    rest = [url for url in urls if url != lost]
    assert [rest[place] for place in preference(exchange, rest)] == [url for url in order if url != lost]
