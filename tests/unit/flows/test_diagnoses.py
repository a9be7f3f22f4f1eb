"""Facts -> findings: each case that an operator may meet, and what the report then says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest

from spex_proxy.facts.errors import BadReply, CannotExplain, UpstreamBusy, UpstreamError
from spex_proxy.facts.evidence import Reading
from spex_proxy.facts.finding import Finding, Level
from spex_proxy.flows import diagnose_house as house
from spex_proxy.flows import diagnose_server as server
from spex_proxy.ports.look import Answer, Look, Silence
from spex_proxy.ports.scorers import Scored
from spex_proxy.store.condition import Condition, Disk, Queue
from spex_proxy.store.connect import RevisionState

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
URL = "http://vllm:8000"
QUIET = Silence("ConnectError refused")
OURS = '{"status": "ok", "version": "1.0"}'


def said(status: int = 200, body: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, body.encode(), NOW, 0.012)


def version(text: str) -> Answer:
    return said(body=f'{{"version": "{text}"}}')


def condition(**changes: object) -> Condition:
    plain = {"version": "SQLite 3.45", "journal": "WAL", "write_trouble": None, "size": 5, "clock_ahead_s": None}
    return Condition(**(plain | changes))  # type: ignore[arg-type]


def queue(**changes: object) -> Queue:
    plain = {"counts": {"queued": 3}, "oldest_waiting_s": 5.0, "workers": 1, "orphans": 0, "paused": ()}
    return Queue(**(plain | changes))  # type: ignore[arg-type]


SCORED = Scored((Reading(np.asarray([-3.5], dtype=np.float32)),), 3, 0, 0.05)
AHEAD = RevisionState("0003", "0002")

CASES: list[tuple[Finding, Level, str]] = [
    (server.upstream(URL, version("0.32.0")), "ok", "vLLM 0.32.0 at http://vllm:8000, 12 ms away"),
    (server.upstream(URL, version("0.31.2")), "warning", "older"),
    (server.upstream(URL, version("0.33.1.dev7+g1")), "warning", "not a release"),
    (server.upstream(URL, said(404)), "broken", "no vLLM server (GET /version gave 404)"),
    (server.upstream(URL, QUIET), "broken", "does not answer: ConnectError refused"),
    (server.api_key(False, said(200), None), "ok", "none is needed"),
    (server.api_key(True, said(200), said(200)), "ok", "not looked at"),
    (server.api_key(False, said(401), None), "broken", "none is set"),
    (server.api_key(True, said(401), said(401)), "broken", "refused (401)"),
    (server.api_key(True, said(401), QUIET), "broken", "refused (ConnectError"),
    (server.api_key(True, said(401), said(200)), "ok", "accepted"),
    (server.api_key(False, said(500), None), "unknown", "500"),
    (server.api_key(False, QUIET, None), "unknown", "could not be asked"),
    (server.tokenizer("é", "é"), "ok", "survives"),
    (server.tokenizer("é", "e"), "warning", "comes back as 'e'"),
    (server.tokenizer("é", UpstreamError("404")), "broken", "404"),
    (server.tokenizer("é", UpstreamBusy("503")), "unknown", "503"),
    (server.token_ids({"chat": "render"}), "ok", "render route, with offsets"),
    (server.token_ids({"chat": "tokenize"}), "warning", "/tokenize"),
    (server.token_ids({"chat": UpstreamError("no template"), "completion": "render"}), "warning", "no template"),
    (server.token_ids({"chat": CannotExplain("x"), "completion": CannotExplain("y")}), "broken", "x"),
    (server.scorer((1, 2, 3), SCORED), "ok", "3 tokens asked, log-probability of the last -3.50, ids match, 50 ms"),
    (server.scorer((1, 2, 3), BadReply("positive")), "broken", "positive"),
    (server.scorer((1, 2, 3), UpstreamBusy("no answer in 60 s")), "unknown", "60 s"),
    (server.scheduling("priority", 100), "ok", "100"),
    (server.scheduling("fcfs", 100), "warning", "wait behind"),
    (server.scheduling("unknown", 100), "unknown", "does not show it"),
    (server.prefix_cache(said(404)), "unknown", "404"),
    (server.prefix_cache(said(body='vllm:cache_config_info{block_size="16"} 1.0')), "ok", "blocks of 16 tokens"),
    (server.prefix_cache(QUIET), "unknown", "refused"),
    (house.relay(URL, version("1"), QUIET, QUIET, "1.0"), "unknown", "nothing listens"),
    (house.relay(URL, version("1"), QUIET, said(body=OURS), "1.0"), "broken", "the second port answers"),
    (house.relay(URL, version("1"), version("1"), QUIET, "1.0"), "warning", "whether it is ours"),
    (house.relay(URL, version("1"), version("1"), said(body='{"ok": 1}'), "1.0"), "warning", "whether it is ours"),
    (house.relay(URL, version("1"), version("1"), said(body=OURS), "1.0"), "ok", "byte for byte"),
    (house.relay(URL, version("1"), version("1"), said(body=OURS), "1.1"), "warning", "this is 1.1"),
    (house.relay(URL, version("1"), version("2"), said(body=OURS), "1.0"), "broken", "other bytes"),
    (house.relay(URL, QUIET, said(502), said(body=OURS), "1.0"), "ok", "502 while the upstream is silent"),
    (house.store("sqlite:///x", condition()), "ok", "WAL, can be written"),
    (house.store("sqlite:///x", condition(journal="DELETE")), "warning", "not WAL"),
    (house.store("sqlite:///x", condition(write_trouble="readonly")), "broken", "can't be written: readonly"),
    (house.store("sqlite:///x", "there is no store at x"), "broken", "there is no store"),
    (house.migrations(RevisionState("0002", "0002")), "ok", "0002"),
    (house.migrations(RevisionState(None, "0002")), "broken", "at none, this version needs 0002"),
    (house.migrations("made by a newer version"), "broken", "newer"),
    (house.queue(queue()), "ok", "3 queued; 1 worker alive; the oldest waits 5 s"),
    (house.queue(queue(counts={}, oldest_waiting_s=None, workers=0)), "ok", "empty; 0 workers alive"),
    (house.queue(queue(workers=0)), "warning", "0 workers alive"),
    (house.queue(queue(oldest_waiting_s=3000.0)), "warning", "50 min"),
    (house.queue(queue(orphans=2)), "warning", "2 running in the name of a worker that is gone"),
    (house.queue(queue(paused=("default",), oldest_waiting_s=None)), "ok", "paused: default"),
    (house.disk(Disk(Path("/x"), 9 * 10**9, 10**10)), "ok", "9.0 GB free"),
    (house.disk(Disk(Path("/x"), 10**9, 10**10)), "warning", "1.0 GB free"),
    (house.disk(Disk(Path("/x"), 10**6, 10**10)), "broken", "1.0 MB free"),
    (house.disk(None), "unknown", "can't be seen"),
    (house.database_clock(condition()), "ok", "SQLite"),
    (house.database_clock(condition(clock_ahead_s=-12.0)), "warning", "ours is 12.0 s ahead"),
    (house.database_clock(condition(clock_ahead_s=3.0)), "ok", "ours is 3.0 s behind"),
    (house.plugins(6, {}, {"segmenter": "auto"}), "ok", "all 6 load; set: auto"),
    (house.plugins(5, {("segmenter", "odd"): "bad"}, {"segmenter": "auto"}), "warning", "bad"),
    (house.plugins(5, {("segmenter", "auto"): "bad"}, {"segmenter": "auto"}), "broken", "bad"),
    (house.telemetry(None, None), "ok", "not set up"),
    (house.telemetry("http://c:4318", said(200)), "ok", "takes spans"),
    (house.telemetry("http://c:4318", said(404)), "warning", "answers 404"),
    (house.telemetry("http://c:4318", QUIET), "warning", "does not answer"),
]


@pytest.mark.parametrize(("finding", "level", "words"), CASES, ids=[f"{f.name}: {w}" for f, _, w in CASES])
def test_what_is_said(finding: Finding, level: Level, words: str) -> None:
    assert (finding.level, words in finding.found) == (level, True), finding


@pytest.mark.parametrize("finding", [finding for finding, _, _ in CASES if finding.level != "ok"])
def test_whatever_is_not_well_says_what_to_do(finding: Finding) -> None:
    assert finding.advice.endswith((".", "?", "spex-proxy db upgrade"))


@pytest.mark.parametrize(
    ("behind_s", "level"), [(0, "ok"), (1.9, "ok"), (4, "ok"), (8, "warning"), (-1, "ok"), (-30, "warning")]
)
def test_the_date_header_has_whole_seconds(behind_s: float, level: Level) -> None:
    date = format_datetime(NOW - timedelta(seconds=behind_s), usegmt=True)
    assert server.clock(said(date=date)).level == level


@pytest.mark.parametrize("look", [said(), said(date="yesterday"), QUIET])
def test_an_upstream_without_a_clock(look: Look) -> None:
    assert server.clock(look).level == "unknown"


def test_which_model_is_tried() -> None:
    two = said(body='{"data": [{"id": "a", "max_model_len": 4096}, {"id": "lora"}]}')
    finding, chosen = server.models(two, None)
    assert (finding.level, chosen and chosen.name) == ("ok", "a")
    assert finding.found == "a (4,096 tokens), lora (length unknown); the checks below use a"
    finding, chosen = server.models(two, "lora")
    assert (finding.level, chosen and chosen.name) == ("warning", "lora")
    finding, chosen = server.models(two, "b")
    assert (finding.level, chosen) == ("broken", None)
    assert server.models(said(body='{"data": []}'), None)[0].level == "broken"
    assert server.models(said(401), None) == (server.unknown("model"), None)


def models(*names: str) -> Answer:
    return said(body=json.dumps({"object": "list", "data": [{"id": name, "max_model_len": 64} for name in names]}))


@pytest.mark.parametrize(
    ("look", "served", "level", "word"),
    [
        (version("0.32.0"), models("m"), "ok", "the same models"),
        (version("0.31.0"), models("m"), "warning", "0.31.0"),
        (version("0.32.0"), models("m", "other"), "warning", "m, other"),
        (version("0.32.0"), said(401), "warning", "no known model"),
        (said(404), said(404), "warning", "of unknown version"),
        (QUIET, QUIET, "broken", "does not answer"),
    ],
)
def test_a_further_replica(look: Look, served: Look, level: Level, word: str) -> None:
    found = server.replica("http://b:1", version("0.32.0"), look, models("m"), served)
    assert (found.name, found.level) == ("replica", level)
    assert word in found.found
    assert "http://b:1" in found.found
    assert bool(found.advice) is (level != "ok")
