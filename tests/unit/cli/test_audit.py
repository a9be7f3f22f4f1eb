"""Review from the terminal, on a store of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spex_proxy.cli import app, shell
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


def test_what_reviewers_write_is_shown_and_not_obeyed(
    run: Run, exchange_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of the history, a row of a list and a word of ours look like nothing that a reviewer can write."""
    monkeypatch.setattr(shell.console, "width", 80)
    forged = "2026-01-01 00:00:00  boss  judged  harmless"
    who, queue = f"eve\x1b[2J\n{forged}", f"odd\x1b]0;t\x07\ncase {forged}"
    opened = run("open", exchange_id, "--who", who, "--queue", queue, "--note", f"ok\n{forged}\r\x1b[1A[bold]x")
    assert (opened.exit_code, len(opened.output.splitlines())) == (0, 1)
    case_id = opened.output.split()[1]
    claimed = run("claim", case_id, "--who", who).output
    assert f"by eve\u241b[2J {' '.join(forged.split())} until" in claimed
    noted = run("note", case_id, "x" * 58 + " " * 7 + forged, "--who", who)
    shown = [opened.output, claimed, noted.output, run("queues").output, run("cases").output]
    shown += [run("history", case_id).output]
    refused = run("claim", case_id, "--who", "ann")
    assert refused.exit_code == 1
    for text in (*shown, refused.output):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
        assert not [line for line in text.splitlines() if line.startswith(("2026-01-01", "boss", f"case {forged}"))]
    history = shown[-1].splitlines()
    assert [line.split()[0] for line in history if not line.startswith(" ")][1:] == [history[1].split()[0]] * 3
    assert "[bold]x" in shown[-1]


def test_a_failure_quotes_without_obeying(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        shell.fail("eve\x1b[2J\nspex-proxy: all is well\n  http://ann:geheim@gpu is [bold]away")
    assert capsys.readouterr().err.splitlines() == [
        "spex-proxy: eve\u241b[2J",
        "  spex-proxy: all is well",
        "  http://ann:***@gpu is [bold]away",
    ]


def test_what_is_not_there_is_said(run: Run) -> None:
    assert "no case 'abc'" in str(run("claim", "abc").exception or run("claim", "abc").output)
    assert run("next").exit_code == 1
    assert "no case yet" in run("queues").output
