"""Flags and feedback over the API, and parts of an answer to explain."""

from __future__ import annotations

from tests.contract.api.serving import LONG_AGO, Api, fault


def exchange(api: Api) -> str:
    with api.engine.begin() as conn:
        return api.make.saved(conn, received_at=LONG_AGO).upstream_id or ""


def test_a_flag_is_kept_once_and_read_again(api: Api) -> None:
    any_id = exchange(api)
    sent = api.post(f"/exchanges/{any_id}/flags", {"who": "guard-7", "name": "toxic", "score": 0.93})
    assert sent.status_code == 201, sent.text
    again = api.post(f"/exchanges/{any_id}/flags", {"who": "guard-7", "name": "toxic", "score": 0.2})
    assert (again.status_code, again.json()) == (200, sent.json()), "the first one stands"
    said = api.post(f"/exchanges/{any_id}/feedback", {"who": "ann", "label": "bad", "comment": "made up"}).json()
    assert (said["name"], said["detail"], said["flagger"], said["who"]) == (
        "feedback:bad",
        "made up",
        "feedback",
        "ann",
    )
    listed = api.get(f"/exchanges/{any_id}/flags").json()["items"]
    assert [flag["name"] for flag in listed] == ["toxic", "feedback:bad"]


def test_what_says_nothing_is_refused(api: Api) -> None:
    any_id = exchange(api)
    fault(api.post(f"/exchanges/{any_id}/feedback", {"who": "ann"}), 422)
    fault(api.post(f"/exchanges/{any_id}/flags", {"who": "ann", "name": "two words"}), 422)
    fault(api.post("/exchanges/nobody-here/flags", {"who": "ann", "name": "x"}), 404)


def test_a_part_of_the_answer_can_be_asked_for(api: Api) -> None:
    any_id = exchange(api)  # "It is warm. ☀"
    job = api.post(f"/exchanges/{any_id}/explain", {"target": {"kind": "quote", "text": "warm"}})
    assert (job.status_code, job.json()["recipe"]["target"]) == (202, "chars:6-10")
    same = api.post(f"/exchanges/{any_id}/explain", {"target": {"kind": "chars", "start": 6, "end": 10}})
    assert (same.status_code, same.json()["id"]) == (200, job.json()["id"])
    other = api.post(f"/exchanges/{any_id}/explain", {"target": {"kind": "first_token"}})
    assert (other.status_code, other.json()["recipe"]["target"]) == (202, "first_token")


def test_a_part_that_is_not_there_is_a_clear_error(api: Api) -> None:
    path = f"/exchanges/{exchange(api)}/explain"
    assert (
        "does not stand in the answer"
        in fault(api.post(path, {"target": {"kind": "quote", "text": "cold"}}), 409)["message"]
    )
    assert (
        "has 13 characters"
        in fault(api.post(path, {"target": {"kind": "chars", "start": 10, "end": 99}}), 409)["message"]
    )
    fault(api.post(path, {"target": {"kind": "tool_call", "call": 1}}), 409)
    fault(api.post(path, {"target": {"kind": "chars", "start": 3}}), 422)
    fault(api.post(path, {"target": {"kind": "quote"}}), 422)
