"""Explain now, stop, go on; and progress as it happens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from spex_proxy.store import games, outbox
from spex_proxy.web import api_jobs, events
from spex_proxy.web.api import PREFIX
from tests.contract.api.serving import LONG_AGO, Api, Behind, explain, fault, serving

Event = tuple[str, dict[str, Any]]


def new_exchange(api: Api) -> str:
    with api.engine.begin() as conn:
        return api.make.saved(conn, received_at=LONG_AGO).id


def asked(api: Api, exchange_id: str | None = None, body: Any = None, **headers: str) -> dict[str, Any]:
    answer = api.post(f"/exchanges/{exchange_id or new_exchange(api)}/explain", body, **headers)
    assert answer.status_code in (200, 202), answer.text
    job: dict[str, Any] = answer.json()
    return job


def claimed(api: Api, job_id: str) -> outbox.Job:
    with api.engine.begin() as conn:
        job = outbox.claim(conn, "w", job_id=job_id)
    assert job is not None
    return job


def measure(api: Api, exchange_id: str, number: int) -> None:
    """One more batch of the game that the server's own recipe plays."""
    with api.engine.begin() as conn:
        game = games.save_game(conn, api.make.game(exchange_id))
        games.append_block(conn, game.id, api.make.block(number))


def finish(api: Api, job: outbox.Job) -> str:
    with api.engine.begin() as conn:
        made = explain(conn, api.make, job.exchange_id, created_at=LONG_AGO)
        outbox.finish(conn, job, made)
    return made


# ---------------------------------------------------------------------------------- asking


def test_asking_makes_a_job_ahead_of_all_that_was_sampled(api: Api) -> None:
    exchange_id = new_exchange(api)
    answer = api.post(f"/exchanges/{exchange_id}/explain", {"budget": 128, "seed": 4, "segmenter": "word"})
    assert answer.status_code == 202
    job = answer.json()
    # behind the re-test that a person has asked for before
    assert (job["state"], job["priority"], job["why"], job["position"]) == ("queued", "asked", "asked", 2)
    assert (job["exchange_id"], job["budget"], job["masks"]) == (exchange_id, 128, 0)
    assert {name: job["recipe"][name] for name in ("seed", "segmenter", "masker")} == {
        "seed": 4, "segmenter": "word", "masker": "delete",
    }  # fmt: skip
    location = httpx.URL(f"{api.url}{PREFIX}/exchanges/{exchange_id}/explain").join(answer.headers["location"])
    assert api.http.get(location).json() == job
    assert api.ok(f"/jobs/{api.filled.job}")["position"] > 2


def test_asking_twice_gives_one_job_until_it_is_over(api: Api) -> None:
    exchange_id = new_exchange(api)
    first = asked(api, exchange_id)
    assert api.post(f"/exchanges/{exchange_id}/explain").status_code == 200
    assert asked(api, exchange_id)["id"] == first["id"]
    assert asked(api, exchange_id, {"seed": 9})["id"] != first["id"]
    finish(api, claimed(api, first["id"]))
    assert asked(api, exchange_id)["id"] != first["id"]


def test_a_key_gives_the_same_job_for_ever(api: Api) -> None:
    exchange_id = new_exchange(api)
    first = asked(api, exchange_id, {"seed": 5}, idempotency_key="k")
    finish(api, claimed(api, first["id"]))
    assert asked(api, exchange_id, {"seed": 5}, idempotency_key="k")["id"] == first["id"]
    assert asked(api, exchange_id, {"seed": 5}, idempotency_key="other")["id"] != first["id"]
    again = api.post(f"/exchanges/{exchange_id}/explain", {"seed": 6}, idempotency_key="k")
    assert fault(again, 409)["code"] == "conflict"
    assert asked(api, body={"seed": 5}, idempotency_key="k")["id"] != first["id"], "a key is one exchange's"


def test_many_at_once_with_one_key_make_one_job(api: Api) -> None:
    exchange_id = new_exchange(api)
    with ThreadPoolExecutor(6) as pool:
        jobs = list(pool.map(lambda _: asked(api, exchange_id, idempotency_key="race")["id"], range(6)))
    assert len(set(jobs)) == 1


def test_what_was_erased_cannot_be_explained(api: Api) -> None:
    error = fault(api.post(f"/exchanges/{api.filled.erased}/explain"), 409)
    assert error["code"] == "cannot_explain"
    assert "erased" in error["message"]


# ------------------------------------------------------------------------- state and changes


def test_a_job_tells_how_far_it_is(api: Api) -> None:
    job = asked(api)
    claim = claimed(api, job["id"])
    measure(api, claim.exchange_id, 0)
    now = api.ok(f"/jobs/{job['id']}")
    assert (now["state"], now["masks"], now["position"], now["attempts"]) == ("running", 4, None, 1)
    assert now["r2"] is None, "no round is whole yet"
    measure(api, claim.exchange_id, 1)
    with api.engine.begin() as conn:
        outbox.hold(conn, claim, r2=0.625)
        outbox.hold(conn, claim, r2=float("nan"))  # a fit that came to nothing takes nothing back
    now = api.ok(f"/jobs/{job['id']}")
    assert (now["masks"], now["r2"]) == (8, 0.625)
    made = finish(api, claim)
    now = api.ok(f"/jobs/{job['id']}")
    assert (now["state"], now["explanation_id"], now["r2"], now["masks"]) == ("done", made, 0.9, 99)


def test_readings_of_another_game_are_not_this_jobs(api: Api) -> None:
    job = asked(api, body={"segmenter": "word"})
    measure(api, job["exchange_id"], 0)
    assert api.ok(f"/jobs/{job['id']}")["masks"] == 0


def test_a_job_is_paused_resumed_and_cancelled(api: Api) -> None:
    path = f"/jobs/{asked(api)['id']}"
    assert fault(api.post(path + "/resume"), 409)["code"] == "conflict"
    assert api.post(path + "/pause").json()["state"] == "paused"
    assert api.post(path + "/resume").json()["state"] == "queued"
    assert api.post(path + "/cancel").json()["state"] == "cancelled"
    for change in ("cancel", "pause", "resume"):
        assert "cancelled" in fault(api.post(f"{path}/{change}"), 409)["message"]


def test_a_paused_job_shows_in_the_list(api: Api) -> None:
    job = asked(api)
    api.post(f"/jobs/{job['id']}/pause")
    assert api.ok(f"/exchanges/{job['exchange_id']}")["row"]["state"] == "paused"
    assert api.ok("/exchanges", state="paused")["items"][0]["job"]["id"] == job["id"]


# ------------------------------------------------------------------------------------ events


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that look often and are never silent for long."""
    times = {"poll_s": 0.02, "heartbeat_s": 0.1}
    monkeypatch.setattr(api_jobs, "EventStream", lambda *arguments: events.EventStream(*arguments, **times))


def told(lines: Iterator[str]) -> Iterator[Event | str]:
    """Events and comments of a stream."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
        elif line.startswith(":"):
            yield line


def events_of(stream: Iterator[Event | str]) -> Iterator[Event]:
    return (item for item in stream if isinstance(item, tuple))


def test_progress_is_told_as_it_happens_until_the_end(api: Api, quick: None) -> None:
    job = asked(api)
    with api.http.stream("GET", f"{api.url}{PREFIX}/jobs/{job['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        stream = events_of(told(answer.iter_lines()))
        assert next(stream) == ("progress", job)
        claim = claimed(api, job["id"])
        assert next(stream)[1]["state"] == "running"
        measure(api, claim.exchange_id, 0)
        assert next(stream)[1]["masks"] == 4
        made = finish(api, claim)
        name, last = next(stream)
        assert (name, last["state"], last["explanation_id"]) == ("end", "done", made)
        assert list(stream) == [], "the server ends the stream"


def test_a_job_that_is_over_tells_so_at_once(api: Api) -> None:
    answer = api.get(f"/jobs/{api.filled.done}/events")
    assert [name for name, _ in events_of(told(iter(answer.text.splitlines())))] == ["end"]


def test_a_silent_stream_beats(api: Api, quick: None) -> None:
    with api.http.stream("GET", f"{api.url}{PREFIX}/jobs/{api.filled.job}/events") as answer:
        stream = told(answer.iter_lines())
        next(stream)
        assert [next(stream), next(stream)] == [": still there", ": still there"]


def test_a_store_that_fails_for_a_while_does_not_end_the_stream(api: Api, quick: None) -> None:
    with api.http.stream("GET", f"{api.url}{PREFIX}/jobs/{api.filled.job}/events") as answer:
        stream = told(answer.iter_lines())
        next(stream)
        api.behind.trouble = sa.exc.OperationalError("", {}, Exception())
        try:
            assert next(stream) == ": the store can't be read now"
        finally:
            api.behind.trouble = None
        assert next(events_of(stream))[1]["id"] == api.filled.job


def test_an_unknown_job_is_404_and_no_stream(api: Api) -> None:
    fault(api.get("/jobs/nobody/events"), 404)


def test_streams_are_bounded_and_a_client_that_leaves_gives_its_place_back(
    api: Api, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_jobs, "Places", lambda: events.Places(2))
    with serving(api.behind.app()) as url:
        path = f"{url}{PREFIX}/jobs/{api.filled.job}/events"
        with api.http.stream("GET", path) as one, api.http.stream("GET", path) as two:
            open_streams = [one.iter_lines(), two.iter_lines()]
            for stream in open_streams:
                next(stream)
            error = fault(api.http.get(path), 429)
            assert error["code"] == "too_many_streams"
        deadline = time.monotonic() + 5
        while True:  # the server notices a closed socket within a poll
            with api.http.stream("GET", path) as three:
                if three.status_code == 200:
                    next(three.iter_lines())
                    break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        api.behind.is_stopping = True
    api.behind.is_stopping = False


def test_streams_end_when_the_server_wants_to_stop(new_store: Callable[[], sa.Engine], api: Api, quick: None) -> None:
    behind = Behind(api.engine)
    over = threading.Event()

    def follow(path: str) -> None:
        httpx.get(path, trust_env=False, timeout=10)
        over.set()

    with serving(behind.app()) as url:
        thread = threading.Thread(target=follow, args=(f"{url}{PREFIX}/jobs/{api.filled.job}/events",))
        thread.start()
        assert not over.wait(0.3)
        behind.is_stopping = True
        assert over.wait(2), "an open stream does not keep the server from stopping"
        thread.join(5)
