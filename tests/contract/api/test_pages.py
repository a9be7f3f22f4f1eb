"""The pages over HTTP: headers, caching, errors in words. How they look and behave is tests/browser's business."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spex_proxy import cli
from tests.contract.api.serving import Api

STRICT = ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'")


def test_pages_are_never_cached_and_run_no_inline_script(api: Api) -> None:
    for path in ("/spex/", "/spex/exchanges/no-such-id-at-all", "/spex/find?id=no-such-id-at-all"):
        answer = api.http.get(api.url + path)
        policy = answer.headers["content-security-policy"]
        assert all(part in policy for part in STRICT)
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", answer.text)
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", answer.text)


def test_static_files_are_kept_for_ever_under_an_address_that_names_their_version(api: Api) -> None:
    page = api.http.get(api.url + "/spex/").text
    address = re.findall(r"/spex/static/[0-9a-f]{12}/pages\.css", page)[0]
    found = api.http.get(api.url + address)
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert found.headers["content-type"] == "text/css; charset=utf-8"
    again = api.http.get(api.url + address, headers={"If-None-Match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = api.http.get(api.url + "/spex/static/000000000000/pages.css")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")


def test_only_files_of_ours_are_served(api: Api) -> None:
    for name in ("nothing.css", "..%2fpages.py", "%2e%2e/pages.py", "pages.py", ""):
        assert api.http.get(f"{api.url}/spex/static/x/{name}").status_code == 404


def test_what_is_not_found_is_said_on_a_page(api: Api) -> None:
    answer = api.http.get(api.url + "/spex/find", params={"id": "<i>unknown-id</i>"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "&lt;i&gt;unknown-id&lt;/i&gt;" in answer.text


def test_nonsense_in_the_address_gives_a_page_all_the_same(api: Api) -> None:
    for query in (
        "cursor=%00",
        "cursor=abc",
        "state=nonsense&range=x&since=yesterday&until=",
        "model=%ff&since=9999-99",
    ):
        assert api.http.get(f"{api.url}/spex/?{query}", follow_redirects=True).status_code == 200


def test_the_short_address_leads_to_the_list(api: Api) -> None:
    answer = api.http.get(api.url + "/spex")
    assert (answer.status_code, answer.headers["location"]) == (303, "/spex/")


def test_the_command_line_writes_the_file_that_the_page_offers(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEX_STORE", str(api.engine.url))
    path = tmp_path / "why.html"
    done = CliRunner().invoke(cli.app, ["show", api.filled.upstream_id, "--html", str(path)])
    assert done.exit_code == 0, done.output
    offered = api.http.get(f"{api.url}/spex/explanations/{api.filled.explanation}/page.html")
    assert path.read_text() == offered.text
    assert offered.headers["content-disposition"].startswith("attachment; ")
