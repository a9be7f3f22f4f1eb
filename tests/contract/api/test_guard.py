"""Pages of other sites, in the operator's own browser, get nothing and change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spex_proxy.web.api import PREFIX
from spex_proxy.web.guard import is_loopback
from tests.contract.api.serving import Api, Behind, fault, serving


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[", "localhost.x"])
def test_a_name_that_resolves_to_loopback_shows_no_content(api: Api, host: str) -> None:
    url = f"{api.url}{PREFIX}/exchanges"
    assert fault(api.http.get(url, headers={"host": host}), 403)["code"] == "foreign_page"
    assert api.http.get(api.url + "/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8081", "127.0.0.1:8081", "[::1]:8081", "10.0.0.7"])
def test_addresses_and_localhost_do(api: Api, host: str) -> None:
    assert api.http.get(f"{api.url}{PREFIX}/exchanges", headers={"host": host}).status_code == 200


@pytest.fixture
def opened(api: Api) -> Iterator[str]:
    with serving(Behind(api.engine, host="0.0.0.0").app()) as url:
        yield url


def test_a_port_that_is_open_to_a_network_has_any_name(api: Api, opened: str) -> None:
    answer = api.http.get(f"{opened}{PREFIX}/exchanges", headers={"host": "spex.internal"})
    assert answer.status_code == 200


def test_names_that_are_allowed_bind_a_port_that_is_open_to_a_network(api: Api) -> None:
    """As in a container, whose 0.0.0.0 the host publishes on loopback."""
    with serving(Behind(api.engine, host="0.0.0.0", names=("spex.internal", "Localhost")).app()) as url:
        for host, expected in (("SPEX.internal:8081", 200), ("localhost", 200), ("10.0.0.7", 200), ("evil", 403)):
            assert api.http.get(f"{url}{PREFIX}/exchanges", headers={"host": host}).status_code == expected, host
        assert api.http.get(f"{url}/healthz", headers={"host": "evil"}).status_code == 200


def test_a_page_of_another_site_starts_no_job(api: Api) -> None:
    path = f"/exchanges/{api.filled.plain}/explain"
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert fault(api.post(path, origin=origin), 403)["code"] == "foreign_page"
    assert api.ok(f"/exchanges/{api.filled.plain}")["jobs"] == []
    assert api.post(path, origin=api.url).status_code == 202


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("spex.internal", False)],
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
