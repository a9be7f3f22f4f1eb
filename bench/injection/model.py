"""The model as the bench sees it: processes that answer, and a file that remembers what they said."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.injection.packing import Ids, Prompt

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
FOLDER = ROOT / ".models" / "smollm2-135m-instruct"


class Processes:
    """So many copies of the model, one core each: two threads of one copy wait for each other on a busy machine."""

    def __init__(self, count: int) -> None:
        command = [str(PYTHON), "-m", "bench.injection.model_process", str(FOLDER)]
        self.running = [
            subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, start_new_session=True,
            )
            for _ in range(count)
        ]  # fmt: skip

    def ask(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        """One request to each process at most, answered at the same time. Raises SystemExit if a process ended."""
        for process, request in zip(self.running, requests, strict=False):
            assert process.stdin
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        return [self._answer(process, request) for process, request in zip(self.running, requests, strict=False)]

    def _answer(self, process: subprocess.Popen[str], request: dict[str, Any]) -> Any:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise SystemExit(
                f"the model's process ended at a {request['do']!r} request; `make vllm` installs what it needs; "
                f"by hand: {PYTHON} -m bench.injection.model_process {FOLDER}"
            )
        return json.loads(line)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self.running:
            assert process.stdin
            process.stdin.close()
            process.wait()


class Memory:
    """Answers by content: equal token ids are never asked twice, whichever method or run asked first. JSON lines."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known: dict[str, Any] = dict(json.loads(line) for line in lines if line.endswith("]"))

    def keep(self, key: str, answer: Any) -> None:
        self.known[key] = answer
        with self.path.open("a") as file:
            file.write(json.dumps([key, answer]) + "\n")


def key_of(*what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


class NeverAsked(LookupError):
    """There is no model, and no earlier run asked this."""


class Model:
    """Render, generate, score; each answered from memory where it can be."""

    def __init__(self, processes: Processes | None, memory: Memory) -> None:
        self.processes = processes
        self.memory = memory

    def _asked(self, requests: Sequence[dict[str, Any]]) -> list[Any]:
        if self.processes is None:
            raise NeverAsked("not in memory, and no model runs")
        return self.processes.ask(requests)

    def render(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """The rendered prompt: text, ids, offsets."""
        key = key_of("render", messages)
        if key not in self.memory.known:
            self.memory.keep(key, self._asked([{"do": "render", "messages": messages}])[0])
        found: dict[str, Any] = self.memory.known[key]
        return found

    def generate(self, prompts: Sequence[Ids], most: int) -> list[tuple[Ids, str]]:
        """Greedy answers of at most so many tokens: ids and text."""
        keys = [key_of("generate", prompt, most) for prompt in prompts]
        missing = [at for at, key in enumerate(keys) if key not in self.memory.known]
        width = len(self.processes.running) if self.processes else 1
        for start in range(0, len(missing), width):
            some = missing[start : start + width]
            asked = [{"do": "generate", "prompts": [prompts[at]], "most": most} for at in some]
            for at, answer in zip(some, self._asked(asked), strict=True):
                self.memory.keep(keys[at], answer[0])
        answers = [self.memory.known[key] for key in keys]
        return [(tuple(answer["ids"]), answer["text"]) for answer in answers]

    def score(self, prompt: Prompt, output: Ids, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Summed log-probability of `output` under each mask (m, n), in nats: shape (m,)."""
        keys = [key_of("score", prompt.kept(mask.tolist()), output) for mask in masks]
        missing = [at for at, key in enumerate(keys) if key not in self.memory.known]
        missing = [missing[at] for at in np.lexsort(masks[missing].T[::-1])]  # neighbours share their beginning
        width = len(self.processes.running) if self.processes else 1
        parts = [part for part in np.array_split(np.asarray(missing, dtype=np.int64), width) if len(part)]
        body = {"before": prompt.before, "segments": prompt.segments, "after": prompt.after}
        asked = [
            {"do": "score", "prompt": body, "output": output, "masks": masks[part].astype(int).tolist()}
            for part in parts
        ]
        for part, values in zip(parts, self._asked(asked) if asked else [], strict=True):
            for at, value in zip(part, values, strict=True):
                self.memory.keep(keys[at], value)
        return np.asarray([self.memory.known[key] for key in keys], dtype=np.float64)


def prompt_of(rendered: dict[str, Any], segments: Sequence[str]) -> Prompt:
    """Cut a rendered prompt at its segments, lines of it: a token belongs to the line of its last character.

    Raises ValueError for a segment that the prompt does not hold.
    """
    text, ids, offsets = rendered["text"], rendered["ids"], rendered["offsets"]
    edges, cursor = list[int](), 0
    for segment in segments:
        start = text.find(f"{segment}\n", cursor)
        if start < 0:
            raise ValueError(f"the prompt does not hold the line {segment!r}")
        cursor = start + len(segment) + 1
        edges += [start] if not edges else []
        edges.append(cursor)
    ends = np.asarray([end for _, end in offsets])
    cuts = [int(np.searchsorted(ends, edge, side="right")) for edge in edges]
    inside = [tuple(ids[a:b]) for a, b in pairwise(cuts)]
    return Prompt(tuple(ids[: cuts[0]]), tuple(inside), tuple(ids[cuts[-1] :]))
