"""How long a fit takes against shapiq's default ProxySPEX, in one run: needs a quiet machine.

    python -m bench.fit_speed --peer-python PATH [--games DIR] [--budgets 128,512] [--rounds 3]

PATH is an interpreter with shapiq (Python 3.12 or newer). The methods take turns on the same masks, one at a
time, each with its own default of threads; medians over rounds. Nothing counts but the fit: imports,
the values of masks and the peer's conversion to an index are outside. The first game is
generated: 64 players, 512 masks. CPU seconds count all threads and bear other work on the machine better than
wall clock does. A load average above 1 at the start is told. Ctrl-C reports what was measured until then.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench import faithfulness, games, record, table
from spex_proxy.engine import draws

OURS = ("proxyspex", "stack")
WIDE, WIDE_MASKS = 64, 512
TEST_ROWS = 500
FASTER, SLOWER = 5.0, 1.0
"""proxyspex must be that much faster than the peer's search; stack no slower on the wide game."""


def wide(folder: Path) -> Path:
    """A generated game of 64 players as a recorded one."""
    game = games.hierarchical(WIDE, 0)
    corner = np.array([[True] * WIDE, [False] * WIDE])
    masks = np.concatenate([corner, draws.uniform_masks(WIDE, WIDE_MASKS + TEST_ROWS, 0)])
    path = folder / "generated_n64.npz"
    np.savez(path, masks=np.packbits(masks, axis=1), n=WIDE, values=game.value(masks), n_test=TEST_ROWS)
    return path


def run(paths: Sequence[Path], budgets: Sequence[int], rounds: int, python: str) -> Iterator[list[faithfulness.Cell]]:
    """A game and number of masks at a time; the seed is the round, so that all three methods see the same rows."""
    with record.Peer(python) as peer:
        for seed in range(-1, rounds):
            for path in paths:
                game = games.load(path)
                for masks in [WIDE_MASKS] if game.masks.shape[1] == WIDE else budgets:
                    turn = [faithfulness.measure(game, method, masks, abs(seed)) for method in OURS]
                    asked = {"method": table.PEER, "masks": masks, "seed": abs(seed)}
                    answer = peer.ask({**asked, "file": str(path.resolve())})
                    if seed < 0:  # the first touch of everything does not count
                        break
                    yield [*turn, {"game": game.name, **asked, **answer}]
                    print(f"\rround {seed + 1}/{rounds}, {path.stem}", end="", file=sys.stderr, flush=True)
                if seed < 0:
                    break


def report(found: Sequence[faithfulness.Cell]) -> str:
    middle = table.medians(found)
    cells = list(dict.fromkeys(key[:2] for key in middle))

    def faster(method: str, name: str) -> list[float]:
        return [middle[*cell, table.PEER].of(name) / middle[*cell, method].of(name) for cell in cells]

    head = ["game, masks", "peer, s", "peer, CPU s"]
    head += [text for one in OURS for text in (f"{one}, s", "faster", "CPU s", "less CPU")] + ["spread"]
    columns = {one: (faster(one, "fit_seconds"), faster(one, "cpu_seconds")) for one in OURS}
    rows = []
    for at, (game, masks) in enumerate(cells):
        peer = middle[game, masks, table.PEER]
        row = [f"{game}, {masks}", peer.show("fit_seconds", 2), peer.show("cpu_seconds", 2)]
        for one in OURS:
            ours, (wall, cpu) = middle[game, masks, one], columns[one]
            row += [ours.show("fit_seconds", 2), f"{wall[at]:.1f}", ours.show("cpu_seconds", 2), f"{cpu[at]:.1f}"]
        rows.append([*row, spread([peer, *(middle[game, masks, one] for one in OURS)])])
    lines = [table.markdown(head, rows), ""]
    for one in OURS:
        for ratios, what in zip(columns[one], ("faster than the peer's search", "less CPU time"), strict=True):
            worst = int(np.argmin(ratios))
            where = f"{cells[worst][0]}, {cells[worst][1]}"
            lines.append(f"{one}: {table.geometric(ratios):.1f} times {what}, worst {ratios[worst]:.1f} ({where})")
    fast = table.geometric(columns["proxyspex"][0])
    lines.append(f"proxyspex at least {FASTER:.0f} times faster, geometric mean: {met(fast >= FASTER)}")
    wide_cell = [at for at, cell in enumerate(cells) if cell[0] == "generated_n64"]
    verdict = [met(columns["stack"][0][at] >= SLOWER) for at in wide_cell] or ["not measured"]
    return "\n".join([*lines, f"stack no slower than the peer at {WIDE} players, {WIDE_MASKS} masks: {verdict[0]}"])


def spread(middles: Sequence[table.Middle]) -> str:
    """Slowest over fastest of a method's rounds, the largest: far from 1, the machine was not quiet."""
    seconds = [[cell["fit_seconds"] for cell in one.cells if "fit_seconds" in cell] for one in middles]
    return f"{max(max(one) / min(one) for one in seconds if one):.1f}"


def met(yes: bool) -> str:
    return "met" if yes else "missed"


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fit_speed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--peer-python", required=True, metavar="PATH", help="an interpreter that has shapiq")
    parser.add_argument("--games", type=Path, required=True, help="folder of recorded games (bench/games.py)")
    parser.add_argument("--budgets", type=lambda text: [int(part) for part in text.split(",")], default=[128, 512])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(given)
    import xgboost  # noqa: F401, PLC0415 - loaded before the clock runs

    load, found = os.getloadavg()[0], list[faithfulness.Cell]()
    with tempfile.TemporaryDirectory() as folder:
        paths = [wide(Path(folder)), *sorted(arguments.games.glob("*.npz"))]
        try:
            for turn in run(paths, arguments.budgets, arguments.rounds, arguments.peer_python):
                found += turn
        except KeyboardInterrupt:
            print("\ninterrupted; what was measured until then:", file=sys.stderr)
    print(report(found), end="\n\n")
    print(f"{os.cpu_count()} cores, {arguments.rounds} rounds; load average before the run {load:.2f}")
    if load > 1.0:
        print("The machine was not quiet at the start: these figures do not count.")


if __name__ == "__main__":
    main(sys.argv[1:])
