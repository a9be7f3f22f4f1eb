"""Review over the API: two reviewers, one case, and its history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from spex_proxy.store import cases
from tests.contract.api.serving import LONG_AGO, Api, fault


def exchange(api: Api) -> str:
    with api.engine.begin() as conn:
        return api.make.saved(conn, received_at=LONG_AGO).id


def opened(api: Api, queue: str, **more: Any) -> dict[str, Any]:
    answer = api.post(f"/exchanges/{exchange(api)}/case", {"who": "ann", "queue": queue, **more})
    assert answer.status_code == 200, answer.text
    case: dict[str, Any] = answer.json()
    return case


def test_from_the_queue_to_the_verdict(api: Api) -> None:
    case = opened(api, "story", note="obeys the web page")
    taken = api.post("/review/next", {"who": "ann", "queue": "story"}).json()
    assert (taken["id"], taken["state"], taken["holder"]) == (case["id"], "claimed", "ann")
    assert api.post(f"/cases/{case['id']}/note", {"who": "bob", "note": "saw it too"}).status_code == 200
    done = api.post(f"/cases/{case['id']}/verdict", {"who": "ann", "label": "injected", "note": "in segment 4"}).json()
    assert (done["state"], done["label"], done["holder"]) == ("done", "injected", None)
    story = api.get(f"/cases/{case['id']}").json()
    assert [(line["act"], line["who"], line["note"]) for line in story["history"]] == [
        ("opened", "ann", "obeys the web page"),
        ("claimed", "ann", None),
        ("noted", "bob", "saw it too"),
        ("judged", "ann", "in segment 4"),
    ]
    assert api.post(f"/cases/{case['id']}/reopen", {"who": "bob"}).json()["state"] == "open"
    (line,) = [line for line in api.get("/review").json()["queues"] if line["queue"] == "story"]
    assert (line["open"], line["claimed"], line["done"]) == (1, 0, 0)


def test_the_second_who_claims_is_told_who_was_first(api: Api) -> None:
    case = opened(api, "race")
    assert api.post(f"/cases/{case['id']}/claim", {"who": "ann"}).status_code == 200
    said = fault(api.post(f"/cases/{case['id']}/claim", {"who": "bob"}), 409)
    assert "ann's until" in said["message"]
    assert "not bob's" in fault(api.post(f"/cases/{case['id']}/release", {"who": "bob"}), 409)["message"]
    assert api.post(f"/cases/{case['id']}/release", {"who": "ann"}).json()["state"] == "open"


def test_what_makes_no_sense_is_refused(api: Api) -> None:
    case = opened(api, "refused")
    api.post(f"/cases/{case['id']}/claim", {"who": "ann"})
    said = fault(api.post(f"/cases/{case['id']}/verdict", {"who": "ann", "label": "meh"}), 409)
    assert said["where"] == "body.label"
    assert "harmless" in said["message"]
    fault(api.post("/review/next", {"who": "ann", "queue": "empty"}), 404)
    fault(api.post("/cases/nobody/claim", {"who": "ann"}), 404)
    fault(api.post("/exchanges/nothing-has-this/case", {"who": "ann"}), 404)
    fault(api.post(f"/exchanges/{exchange(api)}/case", {"who": ""}), 422)


@pytest.mark.parametrize("cursor", ["x", "MQ", "MjAyNi0xMS0yNFQxMjowMDowMCswMDowMCBhYmM"])
def test_a_cursor_that_is_none_is_refused(api: Api, cursor: str) -> None:
    assert fault(api.get("/cases", cursor=cursor), 422)["where"] == "query.cursor"


def test_pages_hold_each_case_once(api: Api) -> None:
    made = [opened(api, "pages", priority=priority)["id"] for priority in (3, 1, 2, 1, 3)]
    found, cursor = [], None
    while True:
        page = api.ok("/cases", queue="pages", limit=2, **({"cursor": cursor} if cursor else {}))
        found += [case["id"] for case in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [made[i] for i in (1, 3, 2, 0, 4)]
    only = api.ok("/cases", exchange=opened(api, "one")["exchange_id"], state=["open", "done"])
    assert len(only["items"]) == 1


def test_a_claim_expires(api: Api) -> None:
    case = opened(api, "expiry")
    with api.engine.begin() as conn:
        cases.act(conn, case["id"], "claim", "ann", hold=timedelta(0))
    taken = api.post("/review/next", {"who": "bob", "queue": "expiry"}).json()
    assert taken["holder"] == "bob"
