"""How long a fit takes against shapiq's default ProxySPEX, in one run: needs a quiet machine.

    python -m bench.fit_speed --peer-python PATH [--games DIR] [--budgets 128,512] [--rounds 3]

PATH is an interpreter with shapiq (Python 3.12 or newer). The methods take turns on the same masks, one at a
time, each with its own default of threads; medians over rounds. Nothing counts but the fit: imports,
the values of masks and the peer's conversion to an index are outside. The last game is
generated: 64 players, 512 masks. A load average above 1 at the start, or a round that deviates, is told.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench import faithfulness, games, record, table
from spex_proxy.engine import designs

OURS = ("proxyspex", "stack")
WIDE, WIDE_MASKS = 64, 512
TEST_ROWS = 500
FASTER, SLOWER = 5.0, 1.0
"""proxyspex must be that much faster than the peer's search; stack no slower on the wide game."""


def wide(folder: Path) -> Path:
    """A generated game of 64 players as a recorded one."""
    game = games.hierarchical(WIDE, 0)
    corner = np.array([[True] * WIDE, [False] * WIDE])
    masks = np.concatenate([corner, designs.uniform_masks(WIDE, WIDE_MASKS + TEST_ROWS, 0)])
    path = folder / "generated_n64.npz"
    np.savez(path, masks=np.packbits(masks, axis=1), n=WIDE, values=game.value(masks), n_test=TEST_ROWS)
    return path


def run(paths: Sequence[Path], budgets: Sequence[int], rounds: int, python: str) -> list[faithfulness.Cell]:
    """All fits; the seed is the round, so that a round's three methods see the same rows."""
    found = []
    with record.Peer(python) as peer:
        for seed in range(-1, rounds):
            for path in paths:
                game = games.load(path)
                for masks in [WIDE_MASKS] if game.masks.shape[1] == WIDE else budgets:
                    turn = [faithfulness.measure(game, method, masks, abs(seed)) for method in OURS]
                    asked = {"method": table.PEER, "masks": masks, "seed": abs(seed)}
                    answer = peer.ask({**asked, "file": str(path.resolve())})
                    found += [*turn, {"game": game.name, **asked, **answer}] if seed >= 0 else []
                    load = os.getloadavg()[0]
                    print(f"\rround {max(seed, 0) + 1}/{rounds}, load {load:.1f}", end="", file=sys.stderr, flush=True)
                    if seed < 0:
                        break  # the first touch of everything does not count
    print(file=sys.stderr)
    return found


def report(found: Sequence[faithfulness.Cell]) -> str:
    middle, rows = table.medians(found), []
    cells = list(dict.fromkeys(key[:2] for key in middle))
    ratios: dict[str, list[float]] = {method: [] for method in OURS}
    for cell in cells:
        peer = middle[*cell, table.PEER]
        row = [f"{cell[0]}, {cell[1]}", peer.show("fit_seconds", 2)]
        for method in OURS:
            ours = middle[*cell, method]
            ratios[method].append(peer.of("fit_seconds") / ours.of("fit_seconds"))
            row += [ours.show("fit_seconds", 2), f"{ratios[method][-1]:.1f}", spread(ours)]
        rows.append([*row, spread(peer)])
    head = ["game, masks", "peer, s"]
    head += [text for method in OURS for text in (f"{method}, s", "faster", "spread")]
    lines = [table.markdown([*head, "peer's spread"], rows), ""]
    for method in OURS:
        worst = int(np.argmin(ratios[method]))
        lines.append(
            f"{method}: {table.geometric(ratios[method]):.1f} times faster than the peer's search (geometric mean), "
            f"worst {ratios[method][worst]:.1f} ({cells[worst][0]}, {cells[worst][1]})"
        )
    total = {name: sum(middle[*cell, name].of("fit_seconds") for cell in cells) for name in (*OURS, table.PEER)}
    fast = total[table.PEER] / total["proxyspex"]
    lines.append(
        f"all cells together: peer {total[table.PEER]:.1f} s, proxyspex {total['proxyspex']:.1f} s: {fast:.1f} times"
    )
    enough = met(table.geometric(ratios["proxyspex"]) >= FASTER)
    lines.append(f"proxyspex at least {FASTER:.0f} times faster on geometric mean: {enough}")
    at = [cell[0] == "generated_n64" for cell in cells].index(True)
    lines.append(
        f"stack no slower than the peer at {WIDE} players, {WIDE_MASKS} masks: {met(ratios['stack'][at] >= SLOWER)}"
    )
    return "\n".join(lines)


def spread(middle: table.Middle) -> str:
    """Slowest over fastest: far from 1, the machine was not quiet or the rows differ."""
    seconds = [cell["fit_seconds"] for cell in middle.cells if "fit_seconds" in cell]
    return f"{max(seconds) / min(seconds):.2f}" if seconds else "–"


def met(yes: bool) -> str:
    return "met" if yes else "missed"


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fit_speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--peer-python", required=True, metavar="PATH", help="an interpreter that has shapiq")
    parser.add_argument("--games", type=Path, default=Path("../shared/games"))
    parser.add_argument("--budgets", type=lambda text: [int(part) for part in text.split(",")], default=[128, 512])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(given)
    import xgboost  # noqa: F401, PLC0415 - loaded before the clock runs

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        paths = [*sorted(arguments.games.glob("*.npz")), wide(Path(folder))]
        found = run(paths, arguments.budgets, arguments.rounds, arguments.peer_python)
    print(report(found))
    print(f"{os.cpu_count()} cores, {arguments.rounds} rounds; load average before the run {load:.2f}")
    if load > 1.0:
        print("The machine was not quiet at the start: these figures do not count.")


if __name__ == "__main__":
    main(sys.argv[1:])
