"""`retest`, `table` and `report` from a terminal, where no worker runs; whatever the model says."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from spex_proxy import cli
from spex_proxy.facts.explanation import Explanation, Flag
from spex_proxy.flows import one_job
from spex_proxy.store import cases, flags, outbox, workers
from tests.story.explaining import RECIPE, Desk, question, sentences
from tests.story.scripted_model import ANSWER, ScriptedModel, planted

HOSTILE = "\x1b[31mred\x1b[0m <script>window.pwned = 1</script> \u202egnirts\u202c " + "x" * 1_000_000


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    made = ScriptedModel(planted(-9, {("Bravo",): 5, ("Alpha", "Delta"): 2}))
    made.says = lambda prompt: ANSWER if "Bravo" in prompt else HOSTILE
    with made:
        yield made


@pytest.fixture
def explained(model: ScriptedModel, store: Engine) -> Explanation:
    desk = Desk(model.url, store, recipe=replace(RECIPE, budget=40))
    desk.ask(question(sentences(8)))
    made = asyncio.run(desk.explanation())
    desk.close()
    return made


def spex(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "100"})
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_the_flag_that_raised_it_is_gone(
    model: ScriptedModel, store: Engine, explained: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the terminal and in the report: what the rules' flagger says of the answer without the cause."""
    rules = tmp_path / "rules.yaml"
    rules.write_text('flaggers:\n  - {flagger: regex, flag: says_so, options: {output: "so[.]"}}\n')
    monkeypatch.setenv("SPEX_RULES", str(rules))
    where = ("--store", str(store.url))
    with store.begin() as conn:
        flag = Flag("says_so", "it says so", flagger="regex")
        flags.raise_on_exchange(conn, str(explained.exchange_id), flag, datetime.now(UTC))
    said = spex("retest", explained.id, "--segments", "2", "--who", "ann", "--upstream", model.url, *where)
    assert "What was flagged is gone without it" in said
    assert "What was flagged (says_so) is gone." in " ".join(said.replace("│", " ").split())
    said = spex("retest", explained.id, "--segments", "3", "--who", "ann", "--upstream", model.url, *where)
    assert "What was flagged stays without it" in said
    spex("report", explained.id, "--html", str(tmp_path / "report.html"), *where)
    page = (tmp_path / "report.html").read_text()
    assert "What was flagged is gone without it" in page
    assert "What was flagged is still there (says_so)." in page


def test_from_the_cause_to_the_report(
    model: ScriptedModel, store: Engine, explained: Explanation, tmp_path: Path
) -> None:
    where = ("--store", str(store.url))
    said = spex("retest", explained.id, "--top", "1", "--who", "ann", "--upstream", model.url, *where)
    assert "The answer changes without it" in said
    assert "left out  2  Bravo is here." in said
    assert "and 994," in said, "a megabyte is cut, and says so"
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "U+202E" in said
    assert len(said) < 40_000
    before = spex("table", explained.id, "1,2,4", *where)
    assert "predicted" in before
    after = spex("table", explained.id, "1,2,4", "--ask", "--upstream", model.url, *where)
    assert after.count("measured") == 8
    with store.begin() as conn:
        case = cases.open_case(conn, str(explained.exchange_id), why="person", who="ann", note="<i>look</i>")
    spex("report", case.id[:12], "--html", str(tmp_path / "report.html"), *where)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;window.pwned" in page
    assert "<script>window.pwned" not in page
    assert "&lt;i&gt;look&lt;/i&gt;" in page
    assert not {"\x1b", "\u202e"} & set(page)
    assert len(page) < 400_000


def left_by(store: Engine, explained: Explanation, who: str) -> str:
    """A re-test of the second segment, claimed by `who`; the job's id."""
    spex("retest", explained.id, "--segments", "2", "--no-wait", "--store", str(store.url))
    with store.begin() as conn:
        job = outbox.claim(conn, who)
    assert job is not None
    assert job.kind == "retest"
    return job.id


@pytest.mark.timeout(60)
@pytest.mark.parametrize("who", ["cli:elsewhere:1:abcd", "a worker that was killed"])
def test_what_a_killed_run_has_left_is_taken_over(
    model: ScriptedModel, store: Engine, explained: Explanation, who: str
) -> None:
    job_id = left_by(store, explained, who)
    said = spex("retest", explained.id, "--segments", "2", "--upstream", model.url, "--store", str(store.url))
    assert "The answer changes without it" in said
    with store.begin() as conn:
        job = outbox.load_job(conn, job_id)
        assert (job.state, job.attempts) == ("done", 2)
        assert workers.live(conn, timedelta(days=1)) == (), "who is done beats no more"


def test_what_somebody_works_on_is_left_to_them(store: Engine, explained: Explanation) -> None:
    ttl, me, other = timedelta(seconds=20), "cli:here:1:a", "cli:elsewhere:1:b"
    job_id = left_by(store, explained, other)

    def taken() -> outbox.Job | None:
        with store.begin() as conn:
            return one_job.take(conn, job_id, me, "default", ttl)

    with store.begin() as conn:
        workers.beat(conn, other, concurrency=1)
    assert taken() is None, "it is being worked on in another terminal"
    with store.begin() as conn:
        workers.leave(conn, other)
        workers.beat(conn, "a worker", concurrency=1)
    assert taken() is None, "a worker will take it over"
    with store.begin() as conn:
        workers.leave(conn, "a worker")
        workers.beat(conn, "cli:elsewhere:2:c", concurrency=1)
    job = taken()
    assert job is not None, "who works on something else takes nothing over"
    assert (job.worker, job.attempts) == (me, 2)
    again = taken()
    assert again is not None, "a claim whose answer was lost is still ours"
    assert (again.worker, again.attempts) == (me, 3)


@pytest.mark.timeout(60)
def test_an_interrupted_run_hands_its_job_back(model: ScriptedModel, store: Engine, explained: Explanation) -> None:
    def interrupting(_prompt: str) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        return ANSWER

    model.says = interrupting
    where = ("--upstream", model.url, "--store", str(store.url))
    assert "stopped;" in spex("retest", explained.id, "--segments", "2", *where, code=1)
    with store.begin() as conn:
        (job,) = outbox.jobs_of_exchange(conn, str(explained.exchange_id), kind="retest")
        assert (job.state, job.worker) == ("queued", None)
        assert workers.live(conn, timedelta(days=1)) == ()


def test_what_can_not_be_done_is_said(store: Engine, explained: Explanation, tmp_path: Path) -> None:
    where = ("--store", str(store.url))
    gone = spex("retest", explained.id, "--segments", "2", "--upstream", "http://127.0.0.1:9", *where, code=1)
    assert "could not be asked" in gone
    spex("retest", explained.id, "--segments", "99", *where, code=1)
    spex("retest", explained.id, "--segments", "two", *where, code=1)
    spex("table", explained.id, "1,1", *where, code=1)
    spex("report", explained.id, "--html", str(tmp_path), *where, code=1)
