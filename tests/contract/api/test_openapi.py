"""The OpenAPI document: complete, true (schemathesis plays it against the application), and without a 5xx."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from spex_proxy.facts.records import ErrorRecord
from spex_proxy.store.listing import encode_cursor
from spex_proxy.web.api import PREFIX
from tests.contract.api.serving import Behind, Filled, fill
from tests.contract.store.samples import NOON, Make

DOCUMENT = f"{PREFIX}/openapi.json"

pytestmark = pytest.mark.filterwarnings("default")  # of schemathesis and what it brings


@pytest.fixture(scope="module")
def behind(new_store: Callable[[], sa.Engine]) -> Behind:
    return Behind(new_store())


@pytest.fixture(scope="module")
def filled(behind: Behind) -> Filled:
    return fill(behind.engine, Make())


@pytest.fixture(scope="module")
def document(behind: Behind) -> dict[str, Any]:
    made: dict[str, Any] = TestClient(behind.app(), base_url="http://localhost").get(DOCUMENT).json()
    return made


# ------------------------------------------------------------------------------ what it says


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        if path.startswith(PREFIX):
            for method, operation in item.items():
                yield f"{method} {path}", operation


def test_every_operation_parameter_and_field_is_described(document: dict[str, Any]) -> None:
    silent = [name for name, operation in operations(document) if not operation.get("description")]
    for name, operation in operations(document):
        silent += [f"{name} {p['name']}" for p in operation.get("parameters", ()) if not p.get("description")]
    assert silent == []
    assert all(schema.get("description") for schema in document["components"]["schemas"].values())


NAMES_ANOTHER = ("/explanations", "/interactions", "/aggregates", ".jsonl", "/cases", "/review/next")
"""Paths without an id, whose parameters or bodies name something that may not be there."""


def test_every_answer_that_can_come_is_documented(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        answers = operation["responses"]
        assert {"403", "422", "503"} <= set(answers), name
        assert ("{" in name) == ("404" in answers) or name.endswith(NAMES_ANOTHER), name
        for status, answer in answers.items():
            assert answer["description"], (name, status)
            if int(status) >= 400:
                shape = answer["content"]["application/json"]["schema"]["$ref"]
                assert shape.endswith(f"/{ErrorRecord.__name__}"), (name, status)
            else:
                assert answer["content"], (name, status)


def test_every_json_answer_has_an_example_that_is_true_to_its_schema(document: dict[str, Any]) -> None:
    """The examples are built from the records, so only their being there can go wrong."""
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) < 300 and "application/json" in answer["content"]:
                assert answer["content"]["application/json"]["example"], name


def test_nothing_on_the_second_port_needs_another_server(document: dict[str, Any]) -> None:
    assert "https://" not in json.dumps(document)


# -------------------------------------------------------------------------- whether it is true


class _Unfilled(Behind):
    """The tests of every operation are made when this file is read, before there is a store."""

    known: dict[str, list[str]]


PLAYED = _Unfilled(sa.create_engine("sqlite://"), host="0.0.0.0")  # has any name, the player's own too
schema = schemathesis.openapi.from_asgi(DOCUMENT, PLAYED.app())


@pytest.fixture(scope="module")
def played(behind: Behind, filled: Filled) -> None:
    PLAYED.engine = behind.engine
    PLAYED.known = {
        "any_id": [filled.explained, filled.upstream_id, filled.explanation, filled.erased, filled.queued],
        "job_id": [filled.done],  # the events of a job that is not over would not end
        "case_id": [filled.case],
        "retest_id": [filled.retest],
    }


@schema.hook
def map_path_parameters(_context: Any, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ids that exist in every other case: unknown ones alone would try little."""
    for name, value in (parameters or {}).items():
        choice = sum(str(value).encode("utf-8", "replace"))
        if choice % 2 and parameters is not None and 0 < len(str(value)) <= 200:
            parameters[name] = PLAYED.known[name][choice % len(PLAYED.known[name])]
    return parameters


RULES_BETWEEN_FIELDS = ("/explain", "/feedback", "/retest", "/coalitions")
"""Ends of paths that refuse what no schema can tell: a quotation without its text, feedback that says nothing,
segments that the explanation does not have."""


@schema.include(path_regex=f"^{PREFIX}").parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_the_application_does_what_the_document_says(case: Any, played: None) -> None:
    cursor = (case.query or {}).get("cursor")
    if isinstance(cursor, str) and 0 < len(cursor) <= 400:
        case.query["cursor"] = encode_cursor(NOON, "2 ~")  # no schema can say which texts are cursors
    answer = case.call()
    is_ruled = case.method == "POST" and case.path.endswith(RULES_BETWEEN_FIELDS)
    is_broad = answer.status_code == 400 and answer.json()["error"]["code"] == "too_broad"  # no index leads to it
    case.validate_response(answer, excluded_checks=[positive_data_acceptance] if is_ruled or is_broad else [])
