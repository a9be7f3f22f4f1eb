"""Review from the terminal, on a store of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spex_proxy.cli import app
from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade
from tests.contract.store.samples import Make

Run = Callable[..., Result]


@pytest.fixture
def exchange_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/s.db"
    monkeypatch.setenv("SPEX_STORE", url)
    engine = open_store(url)
    upgrade(engine)
    with engine.begin() as conn:
        made = Make().saved(conn).id
    engine.dispose()
    return made


@pytest.fixture
def run(exchange_id: str) -> Run:
    return lambda *given: CliRunner().invoke(app, ["audit", *given])


def test_from_open_to_verdict(run: Run, exchange_id: str) -> None:
    said = run("open", exchange_id[:12], "--who", "ann", "--note", "obeys the web page")
    assert said.exit_code == 0, said.output
    case_id = said.output.split()[1]
    assert "is open" in said.output
    assert "claimed by bob" in run("next", "--who", "bob").output
    refused = run("judge", case_id, "wrong", "--who", "ann")
    assert refused.exit_code == 1
    assert "no label" in run("judge", case_id, "meh", "--who", "bob").output
    assert "is done: wrong" in run("judge", case_id, "wrong", "--who", "bob", "--note", "twice").output
    history = run("history", case_id[:8]).output
    assert [line.split()[3] for line in history.splitlines()[1:]] == ["opened", "claimed", "judged"]
    assert "wrong twice" in history
    assert "done wrong" in run("cases").output
    assert "review" in run("queues").output


def test_what_is_not_there_is_said(run: Run) -> None:
    assert "no case 'abc'" in str(run("claim", "abc").exception or run("claim", "abc").output)
    assert run("next").exit_code == 1
    assert "no case yet" in run("queues").output
