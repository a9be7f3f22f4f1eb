"""The command line: help for everything, one line for every trouble, exit codes that a script can trust."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import sqlalchemy as sa
import typer
from typer.testing import CliRunner

from spex_proxy import cli
from spex_proxy.cli import shell
from spex_proxy.facts.errors import SettingsError
from spex_proxy.plug.load import Plugins
from spex_proxy.store.connect import open_store
from spex_proxy.store.migrate import upgrade
from tests.contract.store.samples import Make


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but the test's own, on a wide terminal, in an empty folder."""
    for name in os.environ:
        if name.startswith("SPEX_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "spex.db"
    engine = open_store(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> str:
    (tmp_path / "spex.db").write_bytes(migrated.read_bytes())
    return f"sqlite:///{tmp_path / 'spex.db'}"


@pytest.fixture
def rows(store: str) -> Iterator[sa.Engine]:
    engine = open_store(store)
    yield engine
    engine.dispose()


Spex = Callable[..., tuple[int, str, str]]


@pytest.fixture
def spex(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Spex:
    """Runs a command as the console script does; returns exit code, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["spex-proxy", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0, out, err)

    return run


def commands() -> Iterator[tuple[list[str], click.Command]]:
    def walk(path: list[str], command: click.Command) -> Iterator[tuple[list[str], click.Command]]:
        inner = getattr(command, "commands", {})
        if not inner:
            yield path, command
        for name, child in inner.items():
            yield from walk([*path, name], child)

    yield from walk([], typer.main.get_command(cli.app))


ALL = list(commands())


def test_the_commands_are_there() -> None:
    assert {" ".join(path) for path, _ in ALL} >= {
        "up",
        "serve",
        "work",
        "explain",
        "show",
        "list",
        "verify",
        "db upgrade",
    }


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_and_option_explains_itself(path: list[str], command: click.Command) -> None:
    shown = CliRunner().invoke(cli.app, [*path, "--help"], env={"COLUMNS": "400"})
    assert shown.exit_code == 0
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown.output).split())
    assert command.help is not None
    assert command.help.split(".")[0] in said
    for parameter in command.params:
        if parameter.name == "help":
            continue
        text = getattr(parameter, "help", None)
        assert text, f"{' '.join(path)}: {parameter.name} has no help"
        is_shown = not getattr(parameter, "hidden", False)
        assert (text.split("[env")[0].strip() in said) is is_shown


def test_without_a_command_there_is_help(spex: Spex) -> None:
    _, out, err = spex()
    assert "Why did the model say that?" in out + err
    assert "up" in out + err


def test_help_names_the_environment_where_an_option_has_one() -> None:
    shown = CliRunner().invoke(cli.app, ["up", "--help"], env={"COLUMNS": "400"})
    for name in ("SPEX_UPSTREAM", "SPEX_STORE", "SPEX_PORT", "SPEX_ADMIN_PORT"):
        assert name in shown.output


def test_help_names_what_there_is() -> None:
    shown = CliRunner().invoke(cli.app, ["game", "run", "--help"], env={"COLUMNS": "400"})
    for name in Plugins().names("game"):
        assert re.search(rf"\b{name}\b", shown.output), name
    shown = CliRunner().invoke(cli.app, ["up", "--help"], env={"COLUMNS": "400"})
    assert "Second port: pages, JSON API, health and metrics." in shown.output


# --- troubles: one line, exit code 1, no traceback


def test_an_unknown_id(spex: Spex, store: str) -> None:
    for command in ("show", "verify"):
        code, out, err = spex(command, "chatcmpl-nowhere", "--store", store)
        assert (code, out) == (1, "")
        assert err.startswith("spex-proxy: nothing in project 'default' has the id 'chatcmpl-nowhere'")
        assert "Traceback" not in err


def test_markup_in_an_id_is_shown_as_it_is(spex: Spex, store: str) -> None:
    code, _, err = spex("show", "[/bold]1234", "--store", store)
    assert code == 1
    assert "'[/bold]1234'" in err


def test_the_real_console_script(store: str) -> None:
    script = Path(sys.executable).with_name("spex-proxy")
    command = [script, "show", "chatcmpl-nowhere", "--store", store]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "chatcmpl-nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_store_and_a_store_without_a_schema_say_what_to_do(spex: Spex, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    code, _, err = spex("list", "--store", f"sqlite:///{path}")
    assert code == 1
    assert f"there is no store at {path}: start `spex-proxy up` once" in err
    path.touch()
    code, _, err = spex("list", "--store", f"sqlite:///{path}")
    assert code == 1
    assert "is at revision none, this version needs" in err
    assert "run `spex-proxy db upgrade`" in err


def test_a_store_that_is_none(spex: Spex, tmp_path: Path) -> None:
    (tmp_path / "spex.db").write_text("this is a letter, not a database. " * 100)
    for url in (f"sqlite:///{tmp_path / 'spex.db'}", "nonsense", "mysql://h/d"):
        code, _, err = spex("list", "--store", url)
        assert code == 1
        assert err.startswith("spex-proxy: the store")
        assert "Traceback" not in err


def test_a_store_that_fails_in_the_middle_quotes_no_content(spex: Spex, rows: sa.Engine, store: str) -> None:
    with rows.begin() as connection:
        connection.execute(sa.text("DROP TABLE explanations"))
    code, _, err = spex("show", "my-private-text-as-id", "--store", store)
    assert (code, err) == (1, "spex-proxy: the store failed: no such table: explanations\n")


def test_settings_that_cannot_work(spex: Spex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEX_BUDGET", "many")
    code, _, err = spex("up", "--upstream", "gpu-box", "--port", "99999")
    assert code == 1
    assert err.splitlines() == [
        "spex-proxy: these settings can't work:",
        "  upstream (SPEX_UPSTREAM): must begin with http:// or https://, or be unix:/PATH",
        "  port (SPEX_PORT): Input should be less than or equal to 65535",
        "  budget (SPEX_BUDGET): Input should be a valid integer, unable to parse string as an integer",
    ]


@pytest.mark.timeout(60)
def test_a_port_that_is_taken(spex: Spex, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers run side by side; the one that fails is named, not wrapped in a group of exceptions."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("SPEX_PORT", str(port))
        monkeypatch.setenv("SPEX_ADMIN_PORT", "0")
        code, _, err = spex("serve", "--store", store)
    assert code == 1
    assert f"spex-proxy: can't listen on 127.0.0.1:{port}: " in err
    assert "Traceback" not in err.partition("spex-proxy: can't")[2]


def test_a_plugin_that_is_not_installed(spex: Spex, store: str) -> None:
    code, _, err = spex("explain", "chatcmpl-1", "--segmenter", "poetry", "--store", store)
    assert code == 1
    assert "no segmenter is called 'poetry'. Installed: auto, document, message, sentence, word" in err


def test_no_password_of_an_address_is_shown(spex: Spex, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_up(*_given: object) -> int:
        return 0

    def migrate(_settings: object) -> str:
        raise SettingsError("http://ann:geheim@gpu:1 is away")

    monkeypatch.setattr("spex_proxy.wiring.together.run_up", run_up)
    monkeypatch.setattr("spex_proxy.wiring.schema.migrate", migrate)
    upstreams = ("--upstream", "http://ann:geheim@gpu:8000", "--upstream", "https://geheim@gpu2:8000")
    for store, shown in (
        ("postgresql://spex:geheim@db/spex?password=geheim&sslmode=require", "spex:***@db/spex?sslmode=require;"),
        ("geheim", "store (its URL can't be read);"),
    ):
        code, out, err = spex("up", *upstreams, "--store", store)
        assert code == 0
        said = " ".join(out.split())
        assert "-> http://ann:***@gpu:8000,https://***@gpu2:8000" in said
        assert shown in said
        assert "http://ann:***@gpu:1 is away" in err
        assert "geheim" not in out + err


def test_nor_where_the_store_can_not_be_reached(spex: Spex) -> None:
    url = "postgresql://spex:geheim@127.0.0.1:9/spex?password=geheim"
    for command in (("list",), ("db", "upgrade"), ("doctor",)):
        code, out, err = spex(*command, "--store", url)
        assert code == 1
        assert "spex:***@127.0.0.1:9/spex" in " ".join((out + err).split()).replace(" ", "")
        assert "geheim" not in out + err


@pytest.mark.timeout(120)
def test_the_doctor_shows_no_password_of_a_replica(spex: Spex, store: str) -> None:
    upstreams = ("--upstream", "http://ann:geheim@127.0.0.1:9", "--upstream", "http://ann:geheim2@127.0.0.1:10")
    code, out, err = spex("doctor", *upstreams, "--store", store, "--json")
    assert code == 1
    assert "http://ann:***@127.0.0.1:10 does not answer" in out
    assert "geheim" not in out + err


@pytest.mark.parametrize("arguments", [["frobnicate"], ["show"], ["list", "--limit", "x"]])
def test_wrong_usage_is_exit_code_2(spex: Spex, arguments: list[str]) -> None:
    code, _, err = spex(*arguments)
    assert code == 2
    assert "Usage:" in err
    assert "Traceback" not in err


# --- when it works


def test_db_upgrade_makes_the_store(spex: Spex, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'new.db'}"
    code, out, _ = spex("db", "upgrade", "--store", url)
    assert code == 0
    assert re.fullmatch(r"the store is at revision \w+\n", out)
    assert spex("db", "upgrade", "--store", url)[:2] == (0, out)
    assert spex("list", "--store", url)[0] == 0


@pytest.mark.parametrize(("width", "shown"), [(200, 36), (80, 18)])
def test_list_and_show_of_what_is_not_explained(
    spex: Spex, rows: sa.Engine, store: str, monkeypatch: pytest.MonkeyPatch, width: int, shown: int
) -> None:
    monkeypatch.setattr(shell.console, "width", width)
    with rows.begin() as connection:
        exchange = Make().saved(connection, output_text="Tell [/me] more. \x1b[2J")
    code, out, _ = spex("list", "--store", store)
    assert code == 0
    assert exchange.id[:shown] in out
    assert "Tell [/me] more. ␛[2J" in out
    assert exchange.upstream_id is not None
    code, _, err = spex("show", exchange.upstream_id, "--store", store)
    assert code == 1
    assert f"{exchange.upstream_id} is not explained: " in err
