"""The demo's vLLM leaves no process behind, and its list of packages is complete and pinned."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo import guard, vllm_cpu, vllm_install

A_SERVER_WITH_A_CHILD = "sleep 60 & echo started; wait"
A_SERVER_THAT_DIES_FIRST = "sleep 60 & echo started; exit 1"


def start_guarded(script: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, guard.__file__, "sh", "-c", script]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0)


@pytest.mark.timeout(20)
def test_children_end_when_the_owner_closes_the_pipe_or_dies() -> None:
    with start_guarded(A_SERVER_WITH_A_CHILD) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        assert started.stdout.readline() == b"started\n"
        started.stdin.close()
        # standard output ends when the last process that holds it does, the server's child included
        assert started.stdout.read() == b""


@pytest.mark.timeout(20)
def test_children_end_when_the_server_dies() -> None:
    with start_guarded(A_SERVER_THAT_DIES_FIRST) as started:
        assert started.stdout is not None
        assert started.stdout.read() == b"started\n"


def test_every_package_is_pinned() -> None:
    lines = vllm_install.REQUIREMENTS.read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages[0].startswith("torch=="), "a missing CPU build of torch must show before anything is downloaded"
    assert [line for line in packages if "==" not in line] == []


def test_a_running_server_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEX_TEST_VLLM_URL", "http://gpu-box:8000/")
    with vllm_cpu.running_vllm() as url:
        assert url == "http://gpu-box:8000"


def test_an_interrupted_install_is_not_complete(tmp_path: Path) -> None:
    assert not vllm_install.is_complete(tmp_path)
    (tmp_path / ".complete").write_text("of another list of packages")
    assert not vllm_install.is_complete(tmp_path)
    vllm_install.mark_complete(tmp_path)
    assert vllm_install.is_complete(tmp_path)
