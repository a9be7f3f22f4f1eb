"""Our processes together: the worker may die, the relay may not, and nothing is left behind. Real child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spex_proxy.ports import processes
from spex_proxy.ports.processes import Program, run_together

pytestmark = pytest.mark.timeout(60)

STAYS = "import time; time.sleep(60)"
IS_DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({0!r}, 'a').close(); time.sleep(60)"
SAYS_ITS_PID = "import os; f = open({0!r}, 'a'); f.write(f'{{os.getpid()}}\\n'); f.close()\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RESTART_PAUSE_S", (0.01, 0.02))
    monkeypatch.setattr(processes, "GRACE_S", 0.3)


def vital(script: str) -> Program:
    return Program("the relay", [sys.executable, "-S", "-c", script], is_vital=True)


def helper(script: str) -> Program:
    return Program("the worker", [sys.executable, "-S", "-c", script], is_vital=False)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other processes write files, and no event tells
            await asyncio.sleep(0.01)


def is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_worker_that_dies_is_started_again_while_the_relay_lives(tmp_path: Path) -> None:
    started = tmp_path / "started"
    stop = asyncio.Event()
    dies = SAYS_ITS_PID.format(str(started)) + "raise SystemExit(3)"
    running = asyncio.create_task(run_together([vital(STAYS), helper(dies)], os.environ, stop))
    await until(lambda: len(lines(started)) >= 4)
    assert not running.done()
    stop.set()
    assert await running == 0
    assert len(set(lines(started))) >= 4  # processes of their own


async def test_each_death_is_told_with_its_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    started, stop = tmp_path / "started", asyncio.Event()
    dies = SAYS_ITS_PID.format(str(started)) + "import os; os.kill(os.getpid(), 9)"
    running = asyncio.create_task(run_together([helper(dies)], os.environ, stop))
    await until(lambda: len(lines(started)) >= 3)
    stop.set()
    assert await running == 0
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "the worker ended with code 137; starting it again in 0.01 s"
    assert messages[1] == "the worker ended with code 137; starting it again in 0.02 s"


@pytest.mark.parametrize(
    ("ending", "code"),
    [("", 0), ("raise SystemExit(4)", 4), ("import os; os.kill(os.getpid(), 9)", 128 + 9)],
    ids=["by itself", "with an error", "killed"],
)
async def test_when_the_relay_ends_all_end_with_its_code(ending: str, code: int, tmp_path: Path) -> None:
    started, stop = tmp_path / "started", asyncio.Event()
    size = f"os.path.exists({str(started)!r}) and os.path.getsize({str(started)!r})"
    waits = f"import os, time\nwhile not ({size}): time.sleep(0.01)\n"
    staying = helper(SAYS_ITS_PID.format(str(started)) + STAYS)
    assert await run_together([vital(waits + ending), staying], os.environ, stop) == code
    assert stop.is_set()
    (pid,) = lines(started)
    assert not is_alive(pid)


async def test_stop_asks_politely_and_passes_no_error_on(tmp_path: Path) -> None:
    told, stop = tmp_path / "told", asyncio.Event()
    polite = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(told)!r}, 'a').write('asked\\n'); sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"open({str(told)!r}, 'a').write('ready\\n')\n"
    ) + STAYS
    running = asyncio.create_task(run_together([vital(polite), helper(polite)], os.environ, stop))
    await until(lambda: lines(told).count("ready") == 2)
    stop.set()
    assert await running == 0
    assert lines(told).count("asked") == 2


async def test_who_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    ready, stop = tmp_path / "ready", asyncio.Event()
    running = asyncio.create_task(run_together([vital(IS_DEAF.format(str(ready)))], os.environ, stop))
    await until(ready.exists)
    stop.set()
    async with asyncio.timeout(60):
        assert await running == 0


async def test_a_program_that_cannot_start(caplog: pytest.LogCaptureFixture) -> None:
    """Of the worker: told, tried again, production stays. Of the relay: the end."""
    missing, stop = ["/no/such/program"], asyncio.Event()
    worker = Program("the worker", missing, is_vital=False)
    running = asyncio.create_task(run_together([vital(STAYS), worker], os.environ, stop))
    await until(lambda: caplog.text.count("the worker can't be started: ") >= 2)
    assert not running.done()
    stop.set()
    assert await running == 0
    assert await run_together([Program("the relay", missing, is_vital=True)], os.environ, asyncio.Event()) == 127


async def test_children_see_the_environment_that_they_are_given(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"import os; open({str(out)!r}, 'w').write(str(sorted(k for k in os.environ if k.startswith('SPEX_'))))"
    assert await run_together([vital(script)], {"SPEX_PORT": "1"}, asyncio.Event()) == 0
    assert out.read_text() == "['SPEX_PORT']"


async def test_stopped_before_it_began_nothing_is_started(tmp_path: Path) -> None:
    stop = asyncio.Event()
    stop.set()
    assert await run_together([vital(SAYS_ITS_PID.format(str(tmp_path / "x")))], os.environ, stop) == 0
    assert not (tmp_path / "x").exists()


async def test_the_terminals_own_signal_is_no_death_of_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ctrl-C reaches the children as well: those that end at once, while we stop, are not reported as lost."""
    started, stop = tmp_path / "started", asyncio.Event()
    running = asyncio.create_task(run_together([helper(SAYS_ITS_PID.format(str(started)) + STAYS)], os.environ, stop))
    await until(lambda: len(lines(started)) == 1)
    stop.set()
    os.kill(int(lines(started)[0]), signal.SIGINT)
    assert await running == 0
    assert "starting it again" not in caplog.text
