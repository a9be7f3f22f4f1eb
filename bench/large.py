"""A thousand players: seconds, R2 and peak memory of each method, each in a process of its own. No peer.

python -m bench.large [--players 1000] [--masks 8000] [--methods stack,proxyspex,spex]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence

from bench import faithfulness, games, table

MOST_MEGABYTES = 1000.0
ALONE = "--alone"


def alone(method: str, players: int, masks: int) -> faithfulness.Cell:
    """Fit once, here. The peak counts everything that this process ever held, numpy and xgboost too."""
    name = f"hierarchical_n{players}"
    games.LIVE.setdefault(name, (games.hierarchical, players))
    cell = faithfulness.measure_live(name, method, masks, 0)
    return {**cell, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.large", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--players", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=8000)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["stack", "proxyspex", "spex"])
    parser.add_argument(ALONE, metavar="METHOD", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.alone:
        print(json.dumps(alone(arguments.alone, arguments.players, arguments.masks)))
        return
    rows = []
    for method in arguments.methods:
        command = [sys.executable, "-m", "bench.large", ALONE, method]
        command += ["--players", str(arguments.players), "--masks", str(arguments.masks)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        some = table.Middle([json.loads(done.stdout)])
        peak = "under 1 GB" if some.of("megabytes") < MOST_MEGABYTES else "1 GB or more"
        row = [method, some.show("r2", 3), some.show("recovered", 2), some.show("fit_seconds", 1)]
        rows.append([*row, some.show("megabytes", 0), peak, *some.failures()])
    width = max(map(len, rows))
    head = ["method", "R2", "recovered", "s", "peak, MB", "", "failed"][:width]
    print(f"{arguments.players} players, {arguments.masks} masks, hierarchical sparse game")
    print(table.markdown(head, [[*row, *[""] * (width - len(row))] for row in rows]))


if __name__ == "__main__":
    main(sys.argv[1:])
