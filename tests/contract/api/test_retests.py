"""Tables, re-tests and the report through the API: asked once, answered by a job, refused with the reason."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from spex_proxy.facts.retest import Answers, Spoken, compare
from spex_proxy.store import outbox, retests
from tests.contract.api.serving import LONG_AGO, Api, explain, fault
from tests.contract.store.samples import NOON

ANSWERS = Answers(Spoken("It is warm. ☀", "stop"), Spoken("It snows.", "stop"))


def new(api: Api, segments_of: str = "") -> tuple[str, str]:
    """An exchange and its explanation, over three players."""
    with api.engine.begin() as conn:
        exchange_id = api.make.saved(conn, received_at=LONG_AGO).id
        return exchange_id, explain(conn, api.make, exchange_id)


def answered(api: Api, retest_id: str) -> None:
    """As the worker leaves it."""
    with api.engine.begin() as conn:
        retest = retests.load(conn, retest_id)
        job = outbox.claim(conn, "w", job_id=retest.job_id)
        assert job is not None
        outcome = compare("It is warm. ☀", ANSWERS, prompt_tokens=24, output_tokens=9)
        retests.keep_answers(conn, retest_id, ANSWERS, outcome, NOON, "default")
        outbox.finish(conn, job, retest.explanation_id)


def test_a_retest_from_asking_to_its_answer(api: Api) -> None:
    exchange_id, explanation_id = new(api)
    asked = api.post(f"/explanations/{explanation_id}/retest", {"who": "ann", "segments": [3, 1]})
    assert asked.status_code == 202
    made = asked.json()
    assert (made["state"], made["segments"], made["who"], made["finding"]) == ("queued", [1, 3], "ann", None)
    assert asked.headers["location"] == f"../../retests/{made['id']}"
    again = api.post(f"/explanations/{exchange_id}/retest", {"who": "bob", "segments": [1, 3]})
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    job = api.ok(f"/jobs/{made['job_id']}")
    assert (job["kind"], job["budget"], job["priority"]) == ("retest", 0, "asked")
    answered(api, made["id"])
    found = api.ok(f"/retests/{made['id']}")
    assert (found["state"], found["finding"], found["reproduced"], found["gone"]) == ("done", "changed", True, None)
    assert (found["control"], found["removed"]) == ("It is warm. ☀", "It snows.")
    assert "Without segments 1 and 3 the model answers otherwise" in found["summary"]
    assert [one["id"] for one in api.ok(f"/exchanges/{exchange_id}/retests")["items"]] == [made["id"]]
    assert api.ok(f"/exchanges/{exchange_id}")["row"]["state"] == "reliable", "a re-test is no explanation under way"


def test_the_top_segments_are_those_that_raise_the_answer(api: Api) -> None:
    _, explanation_id = new(api)
    effects = {s["number"]: s["effect"] for s in api.ok(f"/explanations/{explanation_id}")["segments"]}
    best = max(effects, key=lambda number: (effects[number], -number))
    made = api.post(f"/explanations/{explanation_id}/retest", {"who": "ann", "top": 1}).json()
    assert made["segments"] == [best]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"who": "ann"}, 422), ({"who": "ann", "top": 1, "segments": [1]}, 422), ({"who": "ann", "segments": [4]}, 422),
        ({"who": "ann", "segments": []}, 422), ({"who": "", "top": 1}, 422), ({"top": 1}, 422),
        ({"who": "ann", "top": True}, 422),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(api: Api, given: object, status: int) -> None:
    fault(api.post(f"/explanations/{api.filled.explained}/retest", given), status)


def test_nothing_of_erased_content_is_asked_again(api: Api) -> None:
    said = fault(api.post(f"/explanations/{api.filled.erased}/retest", {"who": "ann", "segments": [1]}), 409)
    assert "nothing left to ask again" in said["message"]
    said = fault(api.post(f"/explanations/{api.filled.erased}/coalitions", {"segments": [1, 2]}), 409)
    assert "erased" in said["message"]


def test_a_table_says_what_is_measured_and_asks_for_the_rest_once(api: Api) -> None:
    _, explanation_id = new(api)
    table = api.ok(f"/explanations/{explanation_id}/coalitions", segment=[3, 1])
    assert table["segments"] == [1, 3]
    assert [line["kept"] for line in table["lines"]] == [[], [1], [3], [1, 3]]
    assert table["measured"] == sum(line["measured"] for line in table["lines"]) < 4
    assert table["job"] is None
    asked = api.post(f"/explanations/{explanation_id}/coalitions", {"segments": [1, 3]})
    assert (asked.status_code, asked.json()["job"]["state"]) == (202, "queued")
    again = api.post(f"/explanations/{explanation_id}/coalitions", {"segments": [3, 1]})
    assert (again.status_code, again.json()["job"]) == (200, asked.json()["job"])
    job = api.ok(f"/jobs/{asked.json()['job']['id']}")
    assert (job["kind"], job["position"] is not None) == ("table", True)
    strongest = api.ok(f"/explanations/{explanation_id}/coalitions")
    assert strongest["segments"] == [2, 3], "those that act together the most"
    for wrong in ([1, 1], [4], [1, 2, 3, 1]):
        fault(api.get(f"/explanations/{explanation_id}/coalitions", segment=wrong), 422)


def test_the_report_tells_the_whole_case_and_needs_nothing_else(api: Api) -> None:
    exchange_id, explanation_id = new(api)
    made = api.post(f"/explanations/{explanation_id}/retest", {"who": "ann", "segments": [1]}).json()
    answered(api, made["id"])
    case = api.post(f"/exchanges/{exchange_id}/case", {"who": "ann", "note": "<b>odd</b>", "queue": "report"}).json()
    api.post(f"/cases/{case['id']}/claim", {"who": "ann"})
    api.post(f"/cases/{case['id']}/verdict", {"who": "ann", "label": "wrong"})
    answer = api.get(f"/exchanges/{exchange_id}/report.html")
    assert answer.headers["content-type"].startswith("text/html")
    assert "attachment" in answer.headers["content-disposition"]
    page = answer.text
    for told in ("ann judged it “wrong”", "It snows.", "&lt;b&gt;odd&lt;/b&gt;", "spex-proxy verify", "hmac-sha256:00"):
        assert told in page, told
    assert page.index("In plain language") < page.index("trust card") < page.index('class="seg ')
    assert not re.search(r"(?:src|href)=[\"'](?!#)", page), "it loads and links nothing"
    with api.engine.begin() as conn:
        digests = conn.execute(sa.text("SELECT digest FROM evidence_blocks")).scalars().all()
    assert sum(digest in page for digest in digests) >= 2
    fault(api.get(f"/exchanges/{api.filled.queued}/report.html"), 404)
