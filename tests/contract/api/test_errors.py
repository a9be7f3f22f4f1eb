"""Every error has the one shape, says whose fault it is, and gives nothing away."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from spex_proxy.client.reading import ERRORS
from spex_proxy.facts import errors as facts
from spex_proxy.facts.errors import SettingsError, VerificationFailed
from spex_proxy.web import errors
from spex_proxy.web.api import PREFIX
from tests.contract.api.serving import Api, Behind, fault, serving

UNKNOWN = "00000000-aaaa-bbbb-cccc-000000000000"


BODY = {"who": "ann", "name": "odd", "note": "a word", "label": "wrong", "top": 1, "segments": [1, 2]}
BODIES = {"verdict": {"who", "label"}, "note": {"who", "note"}, "case": {"who"}}
BODIES |= {"flags": {"who", "name"}, "feedback": {"who", "label"}}
BODIES |= {"retest": {"who", "top"}, "coalitions": {"segments"}}
BODIES |= {wish: {"who"} for wish in ("claim", "release", "reopen", "next")}


def operations(api: Api, prefix: str = PREFIX) -> list[tuple[str, str]]:
    paths = api.http.get(f"{api.url}{PREFIX}/openapi.json").json()["paths"]
    return [(method, path) for path, item in paths.items() if path.startswith(prefix) for method in item]


def send(api: Api, method: str, path: str, **options: Any) -> httpx.Response:
    whole = re.sub(r"\{\w+\}", UNKNOWN, path)
    if method == "post" and path.rsplit("/", 1)[1] in BODIES:  # which need a body; a label is no wish but one
        options["json"] = {name: text for name, text in BODY.items() if name in BODIES[path.rsplit("/", 1)[1]]}
    if path.endswith("/compare"):
        options["params"] = {"other": UNKNOWN} | options.get("params", {})
    return api.http.request(method, api.url + whole, **options)


def test_every_operation_answers_unknown_ids_and_bad_parameters_in_the_one_shape(api: Api) -> None:
    for method, path in operations(api):
        if "{" in path:
            error = fault(send(api, method, path), 404)
            assert error["code"] == "not_found"
            assert UNKNOWN in error["message"]
        error = fault(send(api, method, path, params={"project": ""}), 422)
        assert (error["code"], error["where"]) == ("invalid_request", "query.project")


def test_every_operation_says_503_while_the_store_is_down(api: Api) -> None:
    quoting = sa.exc.OperationalError("SELECT secret", {"x": "a person's text"}, sqlite3.OperationalError("disk"))
    for trouble in (SettingsError("the store is at revision 1: run `spex-proxy db upgrade`"), quoting):
        api.behind.trouble = trouble
        try:
            for method, path in operations(api):
                answer = send(api, method, path)
                error = fault(answer, 503)
                assert error["code"] == "store_unavailable"
                assert answer.headers["retry-after"] == "5"
                assert "SELECT" not in answer.text
                assert "person" not in answer.text
        finally:
            api.behind.trouble = None


def test_a_bug_of_ours_is_500_and_says_no_more(api: Api) -> None:
    with serving(_Broken(api.engine).app()) as url:
        answer = api.http.get(f"{url}{PREFIX}/exchanges")
    assert fault(answer, 500)["code"] == "internal"
    assert "a person's text" not in answer.text


class _Broken(Behind):
    def store(self) -> sa.Engine:
        raise ZeroDivisionError("a person's text")


@pytest.mark.parametrize("path", ["/nothing", f"{PREFIX}", f"{PREFIX}/", f"{PREFIX}/nothing", f"{PREFIX}/exchanges/"])
def test_unknown_paths_are_404(api: Api, path: str) -> None:
    assert fault(api.http.get(api.url + path), 404)["code"] == "no_such_path"


def test_other_methods_are_405_and_say_which_there_are(api: Api) -> None:
    answer = api.http.delete(f"{api.url}{PREFIX}/exchanges")
    assert fault(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"limit": 0}, "query.limit"),
        ({"limit": 201}, "query.limit"),
        ({"since": "2026-11-22T12:00:00"}, "query.since"),
        ({"since": "12"}, "query.since"),
        ({"until": "2026-13-01T00:00:00Z"}, "query.until"),
        ({"state": "happy"}, "query.state.0"),
        ({"preview": "perhaps"}, "query.preview"),
        ({"sate": "failed"}, "query.sate"),
    ],
)
def test_a_bad_filter_is_named(api: Api, params: dict[str, Any], where: str) -> None:
    assert fault(api.get("/exchanges", **params), 422)["where"] == where


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"budget": 1}, "body.budget"),
        ({"budget": "64"}, "body.budget"),
        ({"budgett": 64}, "body.budgett"),
        ({"\ud800": 64}, "body"),
        ({"method": "guess"}, "body.method"),
        ({"target_r2": 1.5}, "body.target_r2"),
        ([1], "body"),
    ],
)
def test_a_bad_wish_is_named(api: Api, body: Any, where: str) -> None:
    assert fault(api.post(f"/exchanges/{api.filled.plain}/explain", body), 422)["where"] == where


def test_a_plugin_that_is_not_installed_is_named(api: Api) -> None:
    error = fault(api.post(f"/exchanges/{api.filled.plain}/explain", {"segmenter": "chapter"}), 409)
    assert (error["code"], error["where"]) == ("plugin", "body.segmenter")
    assert "sentence" in error["message"], "it says which there are"


def test_a_body_that_is_no_json_is_the_callers_fault(api: Api) -> None:
    url = f"{api.url}{PREFIX}/exchanges/{api.filled.plain}/explain"
    for content in (b"{", b"\xff", b"[" * 100_000):
        answer = api.http.post(url, content=content, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422)
        fault(answer, answer.status_code)


def test_damaged_evidence_is_said_and_not_shown(api: Api) -> None:
    with api.engine.begin() as conn:
        conn.execute(sa.text("UPDATE evidence_blocks SET mask_values = zeroblob(32) WHERE number = 1"))
    error = fault(api.get(f"/explanations/{api.filled.explanation}/evidence"), 409)
    assert error["code"] == "damaged"


def test_each_error_of_the_tree_has_an_answer_and_comes_back_as_itself() -> None:
    """What the server says and what the client raises agree: no code is unknown to it."""
    assert set(ERRORS) == errors.CODES
    for kind, _, code in errors.ANSWERS:
        if issubclass(kind, facts.SpexError) and kind is not SettingsError:
            assert ERRORS[code] is kind
    assert issubclass(VerificationFailed, facts.SpexError)
