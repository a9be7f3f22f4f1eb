"""Peers' figures: asked of an interpreter that has them, kept in bench/peers.json, one cell a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

RECORD = Path(__file__).parent / "peers.json"
ROOT = Path(__file__).parent.parent

Key = tuple[str, str, int, int]
"""Game, method, masks, seed."""


class Peer:
    """A process of another interpreter that answers requests (bench/peers.py), one at a time."""

    def __init__(self, python: str) -> None:
        command = [python, "-m", "bench.peers"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.versions = self.ask({})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises SystemExit if the process ended."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peers' process ended at {request}; run its command by hand: PYTHON -m bench.peers")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def key(cell: dict[str, Any]) -> Key:
    return cell["game"], cell["method"], cell["masks"], cell["seed"]


def read(path: Path = RECORD) -> dict[str, Any]:
    """What is recorded; nothing, if nothing is."""
    if not path.exists():
        return {"about": {}, "cells": []}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write(about: dict[str, Any], cells: Iterable[dict[str, Any]], path: Path = RECORD) -> None:
    """One cell a line, sorted, so that a new record differs where figures do."""
    lines = ",\n".join(json.dumps(cell) for cell in sorted(cells, key=key))
    partial = path.with_suffix(".partial")
    partial.write_text(f'{{"about": {json.dumps(about, indent=1)},\n"cells": [\n{lines}\n]}}\n')
    partial.replace(path)


def record(python: str, wanted: Sequence[dict[str, Any]], path: Path = RECORD) -> None:
    """Ask for what is not recorded yet; for everything, if it was recorded with other versions.

    Written after each answer, so that it can be stopped at any time. Each of `wanted` is a
    request plus `game`, and `digest` for a recorded game: a cell of another file of that name is asked again.
    """
    with Peer(python) as peer:
        stored = read(path)
        same = {name: stored["about"].get(name) for name in peer.versions} == peer.versions
        have = {key(cell): cell for cell in stored["cells"]} if same else {}
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        begun = stored["about"].get("begun", today) if same else today
        about = {**peer.versions, "platform": platform(), "begun": begun, "date": today}
        about["command"] = "python -m bench.faithfulness --peers PYTHON"
        for number, request in enumerate(wanted):
            known = have.get(key(request))
            if known is None or known.get("digest") != request.get("digest"):
                cell = {name: value for name, value in request.items() if name != "file"}
                have[key(request)] = {**cell, **rounded(peer.ask(request))}
                write(about, have.values(), path)
            print(f"\rpeers: {number + 1}/{len(wanted)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)


def rounded(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in answer.items()}


def platform() -> str:
    return f"{sys.platform}, {os.cpu_count()} cores"
