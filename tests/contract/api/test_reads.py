"""What can be read: every noun, by every id, with and without its content."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from spex_proxy.facts.errors import SettingsError
from spex_proxy.facts.exchange import TraceRef
from tests.contract.api.serving import LONG_AGO, TRACE, Api, Behind, explain, fault, serving, traced
from tests.contract.store.samples import NOON

RECENT = (NOON - timedelta(hours=1)).isoformat()


def test_exchanges_are_listed_newest_first_with_what_became_of_them(api: Api) -> None:
    rows = api.ok("/exchanges", since=RECENT)["items"]
    told = {row["id"]: (row["state"], row["job"] and row["job"]["state"]) for row in rows}
    filled = api.filled
    assert [row["id"] for row in rows] == [
        filled.plain, filled.explained, filled.erased, filled.failed, filled.queued,
    ]  # fmt: skip
    assert told[filled.plain] == ("captured", None)
    assert told[filled.explained] == ("reliable", "done")
    assert told[filled.failed] == ("failed", "failed")
    assert told[filled.queued] == ("queued", "queued")
    assert rows[0]["received_at"] == "2026-11-22T12:00:00.123456Z"
    assert rows[3]["job"]["reason"] == "the prompt has no text"


def test_a_list_reads_content_only_if_asked(api: Api) -> None:
    assert {row["preview"] for row in api.ok("/exchanges")["items"]} == {None}
    shown = {row["id"]: row["preview"] for row in api.ok("/exchanges", preview=True)["items"]}
    assert shown[api.filled.plain] == "It is warm. ☀"
    assert shown[api.filled.erased] is None


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"state": "reliable"}, ["explained", "erased"]),
        ({"state": ["failed", "queued"]}, ["failed", "queued"]),
        ({"model": "huge"}, []),
        ({"since": NOON.isoformat(), "until": (NOON + timedelta(seconds=1)).isoformat()}, ["plain"]),
        ({"until": (NOON - timedelta(seconds=3)).isoformat()}, ["queued"]),
        ({"since": "2026-11-22T13:00:00.123456+01:00", "model": "tiny"}, ["plain"]),
        ({"project": "nobody's"}, []),
        ({"since": "9999-12-31T23:59:59-12:00"}, []),
        ({"until": "0001-01-01T00:00:00+12:00"}, []),
    ],
)
def test_exchanges_are_filtered(api: Api, filters: dict[str, Any], expected: list[str]) -> None:
    rows = api.ok("/exchanges", **{"since": RECENT} | filters)["items"]
    assert [row["id"] for row in rows] == [getattr(api.filled, name) for name in expected]


def test_any_id_finds_an_exchange_and_its_explanation(api: Api) -> None:
    filled = api.filled
    for any_id in (filled.explained, filled.upstream_id, filled.explained[:12], filled.explanation):
        assert api.ok(f"/exchanges/{any_id}")["row"]["id"] == filled.explained
        assert api.ok(f"/explanations/{any_id}")["id"] == filled.explanation


def test_a_trace_id_finds_its_exchange(api: Api) -> None:
    with api.engine.begin() as conn:
        exchange_id = traced(conn, api.make, TraceRef(TRACE, "00f067aa0ba902b7"))
    assert api.ok(f"/exchanges/{TRACE}")["row"] | {"preview": None} == api.ok(f"/exchanges/{exchange_id}")["row"] | {
        "preview": None
    }
    with api.engine.begin() as conn:
        traced(conn, api.make, TraceRef(TRACE, "00f067aa0ba902b8"))
    error = fault(api.get(f"/exchanges/{TRACE}"), 404)
    assert error["code"] == "not_found"
    assert exchange_id in error["message"], "an ambiguous id says what it may mean"


def test_an_exchange_comes_with_its_content_and_its_jobs(api: Api) -> None:
    got = api.ok(f"/exchanges/{api.filled.explained}")
    assert got["messages"][0] == {"role": "system", "name": None, "text": "Be brief."}
    assert got["messages"][1]["text"] == "18 °C\u0000\ufffd", "what UTF-8 can't hold is replaced, the rest is kept"
    assert got["output_text"] == "It is warm. ☀"
    assert got["explanation_ids"] == [api.filled.explanation]
    assert [job["id"] for job in got["jobs"]] == [api.filled.done]
    assert (got["capture_probability"], got["explain_probability"], got["explain_why"]) == (0.25, 0.5, "drawn")


def test_erased_content_is_null_and_all_numbers_stay(api: Api) -> None:
    got = api.ok(f"/exchanges/{api.filled.erased}")
    assert (got["erased"], got["messages"], got["output_text"]) == (True, None, None)
    erased, whole = api.ok(f"/explanations/{api.filled.erased}"), api.ok(f"/explanations/{api.filled.explained}")
    assert erased["erased"] is True
    assert [segment.pop("text") for segment in erased["segments"]] == [None] * 3
    assert [segment.pop("text") for segment in whole["segments"]] == ["Be br", "ief.", ""]
    assert erased["segments"] == whole["segments"]


def test_an_explanation_says_why_and_how_far_to_trust_it(api: Api) -> None:
    got = api.ok(f"/explanations/{api.filled.explanation}")
    assert (got["verdict"], got["verdict_reason"]) == ("reliable", "out-of-fold R2 0.90")
    assert got["fidelity"]["noise_ceiling"] is None, "minus infinity is no number of JSON"
    assert got["fidelity"]["r2"] == 0.9
    assert [segment["number"] for segment in got["segments"]] == [1, 2, 3]
    assert max(abs(segment["strength"]) for segment in got["segments"]) == 1.0
    assert [(i["segments"], i["reading"]) for i in got["interactions"]] == [([2, 3], "more than one by one")]
    assert got["cost"] == {"masks": 99, "prompt_tokens": 4000, "cached_tokens": 1000, "seconds": 7.5}
    assert [flag["name"] for flag in got["flags"]] == ["injection", "cut"]
    assert got["terms"] is None
    terms = api.ok(f"/explanations/{api.filled.explanation}", terms=True)["terms"]
    assert [term["segments"] for term in terms] == [[], [1], [2, 3]]
    assert terms[2]["fourier"] == 1 / 3


def test_explanations_are_listed_and_filtered(api: Api) -> None:
    filled = api.filled
    with api.engine.begin() as conn:
        newer = explain(conn, api.make, filled.failed, created_at=NOON + timedelta(hours=1), verdict="unreliable")
    rows = api.ok("/explanations", since=RECENT)["items"]
    assert rows[0]["id"] == newer
    assert {row["id"] for row in rows} == {newer, filled.explanation, filled.erased_explanation}
    assert [flag["name"] for flag in rows[0]["flags"]] == ["injection", "cut"]
    assert [r["id"] for r in api.ok("/explanations", verdict="unreliable")["items"]] == [newer]
    assert [r["id"] for r in api.ok("/explanations", exchange=filled.upstream_id)["items"]] == [filled.explanation]
    assert api.ok("/explanations", flag="nobody")["items"] == []
    assert len(api.ok("/explanations", flag="cut", since=RECENT)["items"]) == 3
    assert api.ok("/explanations", since=RECENT, until=NOON.isoformat())["items"] == []
    assert api.ok("/explanations", since=(NOON + timedelta(hours=1)).isoformat())["items"][0]["id"] == newer


def test_evidence_is_the_same_in_all_three_forms(api: Api) -> None:
    path = f"/explanations/{api.filled.explanation}/evidence"
    (game,) = api.ok(path)["games"]
    blocks = [api.make.block(number) for number in range(2)]
    masks = np.concatenate([block.masks for block in blocks])
    assert [[int(c) for c in mask] for mask in game["masks"]] == masks.astype(int).tolist()
    assert game["values"] == np.concatenate([block.values for block in blocks]).tolist()
    assert game["blocks"] == [0] * 4 + [1] * 4
    assert (game["n_segments"], game["segmenter"], game["scorer"]["model"]) == (3, "sentence", "tiny")

    table = api.get(path + ".csv")
    assert table.headers["content-type"].startswith("text/csv")
    assert f"{api.filled.explanation}.csv" in table.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["mask"] for row in rows] == game["masks"]
    assert [float(row["value"]) for row in rows] == game["values"]

    with np.load(io.BytesIO(api.get(path + ".npz").content)) as arrays:
        assert arrays["game_ids"].tolist() == [game["game_id"]]
        assert np.array_equal(arrays["masks_0"], masks)
        assert arrays["values_0"].tolist() == game["values"]
        assert arrays["replicates_0"].tolist() == game["replicates"]
        assert np.array_equal(arrays["logprobs_0"], np.concatenate([block.logprobs for block in blocks]))


def test_evidence_is_what_the_explanation_cites_and_no_more(api: Api) -> None:
    with api.engine.begin() as conn:
        exchange = api.make.saved(conn, received_at=LONG_AGO)
        cited = explain(conn, api.make, exchange.id, how={"blocks": [1]}, created_at=NOON - timedelta(days=1))
    (game,) = api.ok(f"/explanations/{cited}/evidence")["games"]
    assert game["blocks"] == [0] * 4


def test_verification_says_what_was_checked(api: Api) -> None:
    answer = api.post(f"/explanations/{api.filled.explained}/verify")
    assert answer.json() == {
        "explanation_id": api.filled.explanation,
        "passed": True,
        "checks": [
            {"name": "links", "passed": True, "skipped": False, "detail": "3 blocks"},
            {"name": "text", "passed": True, "skipped": True, "detail": "erased"},
        ],
    }


def test_health_and_metrics_stand_beside_the_api(api: Api) -> None:
    assert api.http.get(api.url + "/healthz").json() == {"status": "ok", "version": "0.0.test"}
    assert api.http.get(api.url + "/readyz").json()["store"] == "ok"
    assert "spex_relayed_requests" in api.http.get(api.url + "/metrics").text


def test_metrics_tell_the_backlog_and_its_age(api: Api) -> None:
    lines = api.http.get(api.url + "/metrics").text.splitlines()
    said = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}
    counts = {state: said[f'spex_jobs{{state="{state}"}}'] for state in ("queued", "running", "paused")}
    assert counts["queued"] >= 1
    assert (counts["paused"], said["spex_workers"], said["spex_store_up"]) == (0, 0, 1)
    assert 0 < said["spex_oldest_waiting_job_seconds"] < 3600


def test_metrics_of_a_store_that_is_away_say_so_and_keep_the_rest(api: Api, new_store: Callable[[], sa.Engine]) -> None:
    behind = Behind(new_store(), trouble=SettingsError("there is no store"))
    with serving(behind.app()) as url:
        said = api.http.get(f"{url}/metrics").text
    assert "spex_store_up 0.0" in said
    assert "spex_jobs{" not in said
    assert "spex_stored_exchanges_total 0.0" in said
