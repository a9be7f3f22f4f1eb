"""A real vLLM with a small real model on the CPU, for the demo and for the tests.

    python3 -m deploy.demo.vllm_cpu            # until Ctrl-C

and in Python:

    with running_vllm() as url:                # "http://127.0.0.1:51234"
        ...

`vllm_install.py` has put both where this looks for them. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploy.demo import guard
from deploy.demo.vllm_install import CHECKOUT, MODEL, PYTHON, VENV, Unavailable, from_terminal, is_complete, say

LOGS = CHECKOUT / "var"
PLUGIN = CHECKOUT / "plugins" / "vllm_engine"

SERVED_MODEL = "smollm2"
"""The name by which clients ask for the model."""

START_SECONDS = 600  # 20 to 40 on two cores, twice that the first time, minutes on a machine that is busy otherwise


@contextlib.contextmanager
def running_vllm(
    *, port: int = 0, extra: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start the server, wait until it is healthy, give its base URL, and stop all of it at the end.

    `port` 0 takes a free one; `extra` are more arguments for vLLM; `environment` is added to its own.
    With SPEX_TEST_VLLM_URL set, that server is used as it is, which saves developers the start.
    Our own plugin is loaded from the checkout; nothing is installed into `.venv-vllm` for it.
    """
    if running := os.environ.get("SPEX_TEST_VLLM_URL"):
        yield running.rstrip("/")
        return
    if not (is_complete(VENV) and is_complete(MODEL)):
        raise Unavailable("vLLM or its model is not installed here: run `make vllm`.")
    port = port or _free_port()
    LOGS.mkdir(exist_ok=True)
    log = LOGS / f"vllm-{port}.log"
    command = [sys.executable, guard.__file__, *_server_command(port), *extra]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_server_environment(), **plugin_environment(), **(environment or {})},
            start_new_session=True,  # a process group of its own, which ends as a whole
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(url, process, log)
        yield url
    finally:
        _stop(process)


def _server_command(port: int) -> list[str]:
    return [
        str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", # `vllm serve` looks for a package named vllm
        "--model", str(MODEL), "--served-model-name", SERVED_MODEL,
        "--host", "127.0.0.1", "--port", str(port),
        "--max-model-len", "4096",
        "--enforce-eager", "--block-size", "32", # a quick start; short prompts share cached blocks
        "--scheduling-policy", "priority", # our re-queries go behind production
        "--enable-scale-out", "--enable-prompt-tokens-details", # scoring on token ids; cached tokens reported
    ]  # fmt: skip


def _server_environment() -> dict[str, str]:
    # The cores that this process may use, less one for the proxy and the client where there are more than two.
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [0]
    used = cores[:-1] if len(cores) > 2 else cores
    return {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, used)),
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; room for about 46,000 tokens of this model
        # Keep compiled modules even where the person's own environment does not: three processes import
        # all of torch and vLLM, and compiling every time doubles the start.
        "PYTHONDONTWRITEBYTECODE": "",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def plugin_environment() -> dict[str, str]:
    """What makes vLLM find our plugin and load it: its folder, and beside it what an installation would tell of it."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    told = LOGS / "vllm-plugin"
    info = told / "spex_proxy_vllm-0.dist-info"  # one name, whatever the version: no older one lies beside it
    info.mkdir(parents=True, exist_ok=True)
    _replace(info / "METADATA", f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    _replace(info / "entry_points.txt", "\n".join(lines) + "\n")
    before = os.environ.get("PYTHONPATH")
    return {
        "VLLM_PLUGINS": "spex",
        "PYTHONPATH": os.pathsep.join([str(PLUGIN), str(told), *([before] if before else [])]),
    }


def _replace(file: Path, text: str) -> None:
    """In one step: two servers may start at once."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(file)


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(guard.STOP_SECONDS + 5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    where = log.relative_to(CHECKOUT)
    say(f"starting vLLM on the CPU at {url} (log: {where})")
    began = time.monotonic()
    reported = 0
    while not _answers(f"{url}/health"):
        seconds = int(time.monotonic() - began)
        if process.poll() is not None:
            raise Unavailable(f"vLLM ended while starting (it needs about 5 GB of memory):\n{_tail(log)}")
        if seconds > START_SECONDS:
            raise Unavailable(f"vLLM was not ready after {START_SECONDS} s:\n{_tail(log)}")
        if seconds >= reported + 10:
            reported = seconds
            say(f"... vLLM is still loading ({seconds} s)")
        time.sleep(0.25)
    say(f"vLLM is ready after {time.monotonic() - began:.0f} s")


def _answers(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business here
    try:
        with direct.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python3 -m deploy.demo.vllm_cpu", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    with running_vllm(port=parser.parse_args(arguments).port) as url:
        say(f"serving {SERVED_MODEL} at {url}/v1 until Ctrl-C")
        signal.pause()


if __name__ == "__main__":
    from_terminal(main)
