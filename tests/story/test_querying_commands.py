"""`find`, `export`, `aggregate`, `index`, `compare`, `flag`, `why` and `explain --target` from a terminal."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from spex_proxy import cli
from spex_proxy.facts.explanation import Explanation
from spex_proxy.web import api_query
from tests.story.explaining import RECIPE, Desk, count, question, sentences
from tests.story.scripted_model import ANSWER, ScriptedModel, planted


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(planted(-9, {("Bravo",): 5, ("Alpha", "Delta"): 2})) as made:
        yield made


@pytest.fixture
def desk(model: ScriptedModel, store: Engine) -> Iterator[Desk]:
    made = Desk(model.url, store, recipe=replace(RECIPE, budget=40))
    yield made
    made.close()


@pytest.fixture
def explained(desk: Desk) -> Explanation:
    desk.ask(question(sentences(8)))
    return asyncio.run(desk.explanation())


@pytest.fixture
def where(store: Engine) -> tuple[str, str]:
    return "--store", str(store.url)


def spex(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "120"})
    assert done.exit_code == code, (done.output, done.exception)
    return done.stdout if code == 0 else f"{done.output}{done.exception}"


def test_finding(explained: Explanation, where: tuple[str, str]) -> None:
    said = spex("find", "explanations", "--verdict", "reliable", *where)
    assert explained.id[:12] in said  # in few columns it is cut to what still finds it
    assert spex("find", "explanations", "--verdict", "unreliable", *where).strip() == "nothing fits"
    (row,) = json.loads(spex("find", "exchanges", "--text", "bravo", "--json", *where))
    assert row["id"] == explained.exchange_id
    assert spex("find", "exchanges", "--text", "zulu", *where).strip() == "nothing fits"
    assert len(json.loads(spex("find", "interactions", "--limit", "3", "--json", *where))) == 3
    assert "there are no 'cats'" in spex("find", "cats", *where, code=1)
    assert "--verdict can't be 'good'" in spex("find", "explanations", "--verdict", "good", *where, code=1)
    assert "is no date and time" in spex("find", "exchanges", "--since", "yesterday", *where, code=1)


def test_exporting(explained: Explanation, where: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    assert "1 explanations in" in spex("export", "explanations", "--out", str(out), *where)
    (line,) = out.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["id"] == explained.id
    assert "Bravo" not in line, "no texts"
    assert "ends neither in" in spex("export", "explanations", "--out", str(tmp_path / "rows.csv"), *where, code=1)
    assert "can't be written" in spex(
        "export", "explanations", "--out", str(tmp_path / "no" / "a.jsonl"), *where, code=1
    )


def test_a_filter_that_a_noun_does_not_have_is_no_filter_passed_over(
    explained: Explanation, where: tuple[str, str], tmp_path: Path
) -> None:
    exchange = ("--exchange", str(explained.exchange_id))
    said = spex("find", "exchanges", *exchange, *where, code=1)
    assert "exchanges have no filter `exchange`; explanations and interactions have it" in said
    assert len(json.loads(spex("find", "explanations", *exchange, "--json", *where))) == 1
    out = tmp_path / "rows.jsonl"
    said = spex("export", "interactions", "--state", "failed", "--out", str(out), *where, code=1)
    assert "interactions have no filter `state`; exchanges have it" in said
    assert list(tmp_path.glob("*rows*")) == []
    said = spex("aggregate", "--since", "2000-01-01", "--state", "failed", *where, code=1)
    assert "explanations have no filter `state`; exchanges have it" in said


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("trouble", [OperationalError("SELECT", {}, OSError("disk")), KeyboardInterrupt()])
def test_an_export_that_breaks_off_leaves_no_file_that_looks_whole(
    explained: Explanation,
    where: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    trouble: BaseException,
) -> None:
    out = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    spex("export", "explanations", "--out", str(out), *where)
    out.chmod(0o600)
    before = out.read_bytes()
    rows_of = api_query.rows_of

    def breaks_off(*given: Any) -> Any:
        if given[-1] is not None:
            raise trouble
        return rows_of(*given)[0], "more"

    monkeypatch.setattr(api_query, "rows_of", breaks_off)
    done = CliRunner().invoke(cli.app, ["export", "explanations", "--out", str(out), *where], env={"COLUMNS": "300"})
    assert done.exit_code != 0
    assert f"the export broke off: {out} is not written" in done.stderr
    assert (out.read_bytes(), list(tmp_path.glob("*rows*"))) == (before, [out])
    monkeypatch.undo()
    spex("export", "explanations", "--out", str(out), *where)
    assert (out.stat().st_mode & 0o777, list(tmp_path.glob("*rows*"))) == (0o600, [out])


def test_exporting_to_parquet(explained: Explanation, where: tuple[str, str], tmp_path: Path) -> None:
    """The same rows as JSON has, by columns: times are times, lists are JSON. Where pyarrow is not, a word about it."""
    out = tmp_path / "rows.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        said = spex("export", "explanations", "--out", str(out), *where, code=1)
        assert "pip install 'spex-proxy[parquet]'" in said
        assert not out.exists()
        return
    parquet = importlib.import_module("pyarrow.parquet")
    for noun in ("exchanges", "explanations", "interactions"):
        lines = tmp_path / f"{noun}.jsonl"
        spex("export", noun, "--out", str(lines), *where)
        wanted = [json.loads(line) for line in lines.read_text().splitlines()]
        assert f"{len(wanted)} {noun} in" in spex("export", noun, "--out", str(out), *where)
        rows = parquet.read_table(out).to_pylist()
        assert [list(row) for row in rows] == [list(row) for row in wanted]
        for row, line in zip(rows, wanted, strict=True):
            for name, value in line.items():
                assert row[name] == as_column(value, isinstance(row[name], datetime)), name
        assert len(rows) > 0
    spex("export", "explanations", "--verdict", "unreliable", "--out", str(out), *where)
    table = parquet.read_table(out)
    assert (table.num_rows, str(table.schema.field("created_at").type)) == (0, "timestamp[us, tz=UTC]")
    said = spex("export", "exchanges", "--out", str(tmp_path / "no" / "a.parquet"), *where, code=1)
    assert "can't be written" in said


def test_without_pyarrow_parquet_says_how_to_get_it(
    explained: Explanation, where: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = tmp_path / "rows.parquet"
    said = spex("export", "explanations", "--out", str(out), *where, code=1)
    assert "Parquet needs pyarrow: pip install 'spex-proxy[parquet]'" in said
    assert not out.exists()
    assert "1 explanations in" in spex("export", "explanations", "--out", str(out.with_suffix(".jsonl")), *where)
    assert explained.id in out.with_suffix(".jsonl").read_text()


def as_column(value: Any, is_moment: bool) -> Any:
    if is_moment:
        return datetime.fromisoformat(value)
    return json.dumps(value) if isinstance(value, list | dict) else value


def test_aggregating(explained: Explanation, where: tuple[str, str]) -> None:
    said = json.loads(spex("aggregate", "--since", "2000-01-01", "--json", *where))
    assert {share["name"]: share["share"]["n"] for share in said["whole"]["verdicts"]}["reliable"] == 1
    assert "depends on user" in spex("aggregate", "--since", "2000-01-01", *where)
    assert "--by can't be 'moon'" in spex("aggregate", "--since", "2000-01-01", "--by", "moon", *where, code=1)


def test_an_index(explained: Explanation, where: tuple[str, str]) -> None:
    said = spex("index", explained.id, "--index", "sv", "--order", "1", *where)
    values = {line.split()[0]: float(line.split()[1]) for line in said.splitlines()[1:]}
    wanted = {"2": 5.0, "1": 1.0, "4": 1.0}  # the pair's 2 is shared
    assert {who: values[who] for who in wanted} == pytest.approx(wanted, abs=0.05)
    spex("index", explained.id, "--index", "nonsense", *where, code=1)


def test_comparing(desk: Desk, explained: Explanation, where: tuple[str, str]) -> None:
    desk.queue_again(str(explained.exchange_id), seed=5)
    other = asyncio.run(desk.explanation())
    said = spex("compare", explained.id, other.id, *where)
    assert "rank correlation of effects: " in said
    assert said.count(" is here.") == 8
    assert "in both: 1 + 4" in said


def test_flagging(explained: Explanation, store: Engine, where: tuple[str, str]) -> None:
    said = spex("flag", explained.id, "rude", "--detail", "a customer wrote", "--who", "ann", *where)
    assert "flagged: rude; no rule acts upon it" in said
    assert count(store, "flags", "name = 'rude'") == 1
    assert "was flagged so before" in spex("flag", explained.id, "rude", "--who", "ann", *where)
    (row,) = json.loads(spex("find", "exchanges", "--flag", "rude", "--json", *where))
    assert row["id"] == explained.exchange_id


def test_why_shows_what_there_is_and_makes_what_is_not(
    desk: Desk, model: ScriptedModel, store: Engine, where: tuple[str, str]
) -> None:
    asked = desk.ask(question(sentences(5)))
    upstream = ("--upstream", model.url)
    said = spex("why", asked, *upstream, *where)
    assert "Bravo is here." in said
    masks = len(model.asked)
    assert "Bravo is here." in spex("why", asked, *upstream, *where)
    assert len(model.asked) == masks, "it is there"
    assert count(store, "explanations") == 1


def test_a_part_of_the_answer(desk: Desk, model: ScriptedModel, store: Engine, where: tuple[str, str]) -> None:
    asked = desk.ask(question(sentences(5)))
    quoted = ANSWER.split()[0]
    said = spex("explain", asked, "--target", f"quote:{quoted}", "--upstream", model.url, *where)
    assert "target: " in said
    assert "does not stand in the answer" in spex(
        "explain", asked, "--target", "quote:never said", "--upstream", model.url, *where, code=1
    )
