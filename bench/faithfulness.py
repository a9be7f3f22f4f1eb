"""How well do explanations predict masks that nobody fitted?

    python -m bench.faithfulness                                the table, and the plots in docs/images
    python -m bench.faithfulness --games DIR --methods stack,proxyspex --budgets 128,512 --seeds 0,1 --json
    python -m bench.faithfulness --peers PYTHON                 record the peers' figures that are missing first

Recorded games are files of DIR (bench/games.py says what is in them). A seed is a permutation of
the training rows; a fit sees the full and the empty mask and the first of the permuted ones, N masks in
all. A budget is a number of masks, or a multiple of the players: 4n. With --json one object a line, in
the order of fitting: game, method, masks, seed, r2, fit_seconds; live games are left out. That form is for other
tools and stays as it is; it needs no peer.

Live games (bench/games.py) answer any mask, for methods that bring their own. A seed makes the game and the masks.
One of them needs scikit-learn and is left out without it.

Peers need an interpreter that has them (shapiq: Python 3.12 or newer). Their figures stand in
bench/peers.json; delete it to have all of them recorded again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import games, peers, plots, record, scores, table
from bench.games import Game
from spex_proxy.engine import designs, interactions
from spex_proxy.engine.conclude import METHODS, conclude
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe

OWN_MASKS = ("spex",)
"""Methods that can't be fitted to recorded masks."""
STABLE = ("game", "method", "masks", "seed", "r2", "fit_seconds")
"""What --json prints."""
BUDGETS = ("4n", "8n", "16n", "128", "512")
LIVE_BUDGETS = (512, 2048)
LIVE_SEEDS = (0, 1, 2)

Cell = dict[str, Any]


def measure(game: Game, method: str, budget: int, seed: int) -> Cell:
    """Fit and test once; SystemExit for rows that no fit can come from.

    `fit_seconds`: wall clock of the whole conclusion, judging included; `cpu_seconds`: of all its threads.
    """
    try:
        rows = rows_of(game.training(budget, seed))
        begin, cpu = time.perf_counter(), time.process_time()
        fit = conclude(Recipe(method=method), rows)
    except BadEvidence as error:
        raise SystemExit(f"{game.name}, {budget} masks, seed {seed}: {error}") from error
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    said = fit.fidelity
    return {
        "game": game.name, "method": method, "masks": budget, "seed": seed,
        "r2": scores.r_squared(fit.spectrum, game.test()), "fit_seconds": seconds,
        "cpu_seconds": cpu, "claimed": said.r2, "low": said.r2_low, "high": said.r2_high, "digest": game.digest,
    }  # fmt: skip


def measure_live(name: str, method: str, budget: int, seed: int) -> Cell:
    """Ask what the method's plan asks, fit and test once. A budget that the method can't work with is told."""
    game, recipe = games.live(name, seed), Recipe(method=method, budget=budget, replicates=1, seed=seed)
    cell: Cell = {"game": name, "method": method, "masks": budget, "seed": seed}
    try:
        plan = designs.plan(game.n, recipe)
        rows = rows_of(Evidence(plan.masks, game.value(plan.masks), plan.replicates))
        begin = time.perf_counter()
        spectrum = conclude(recipe, rows).spectrum
    except BadEvidence as error:
        return {**cell, "failed": str(error)}
    cell |= {"fit_seconds": time.perf_counter() - begin, "asked": len(plan)}
    cell |= {"r2": scores.r_squared(spectrum, game.test()), "recovered": scores.recovered(spectrum, game)}
    return {**cell, "shapley_error": scores.shapley_error(interactions.shapley_values(spectrum), game)}


class Kept:
    """Cells that a file holds already, so that a long run can be done in parts."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.cells = {(*record.key(cell), cell.get("digest")): cell for cell in map(json.loads, lines)}

    def get(self, game: str, method: str, masks: int, seed: int, digest: str | None) -> Cell | None:
        return self.cells.get((game, method, masks, seed, digest))

    def add(self, cell: Cell) -> None:
        if self.path:
            with self.path.open("a") as out:
                out.write(json.dumps(cell) + "\n")


def cells(recorded: Sequence[Game], arguments: argparse.Namespace, kept: Kept) -> Iterator[Cell]:
    """All fits of recorded games, one after the other."""
    for game in recorded:
        for budget in budgets(game, arguments.budgets):
            for seed in arguments.seeds:
                for method in arguments.methods:
                    known = kept.get(game.name, method, budget, seed, game.digest)
                    cell = known or measure(game, method, budget, seed)
                    if known is None:
                        kept.add(cell)
                    yield cell


def live_cells(arguments: argparse.Namespace, kept: Kept) -> Iterator[Cell]:
    """All fits of live games."""
    for name in arguments.live:
        for budget in LIVE_BUDGETS:
            for seed in LIVE_SEEDS:
                for method in METHODS:
                    known = kept.get(name, method, budget, seed, None)
                    cell = known or measure_live(name, method, budget, seed)
                    if known is None:
                        kept.add(cell)
                    yield cell


def budgets(game: Game, given: Sequence[str]) -> list[int]:
    """ "4n" is four times the players. Each number once."""
    n = game.masks.shape[1]
    return list(dict.fromkeys(int(text[:-1]) * n if text.endswith("n") else int(text) for text in given))


def requests(folder: Path, recorded: Sequence[Game], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What peers are asked for: every cell, the default peer with twice the masks too, and the live games."""
    wanted = []
    for seed in arguments.seeds:
        for game in recorded:
            common = {"seed": seed, "digest": game.digest, "file": str((folder / f"{game.name}.npz").resolve())}
            once = budgets(game, arguments.budgets)
            for masks in dict.fromkeys([*once, *(2 * count for count in once)]):
                if masks <= len(game.values) - game.n_test:
                    named = [{"game": game.name, "method": method, "masks": masks} for method in peers.RECORDED]
                    wanted += [{**one, **common} for one in named]
    for seed in LIVE_SEEDS:
        for name in arguments.live:
            for masks in LIVE_BUDGETS:
                wanted += [{"game": name, "method": one, "masks": masks, "seed": seed} for one in peers.LIVE]
    return wanted


def report(found: Sequence[Cell], alive: Sequence[Cell], arguments: argparse.Namespace) -> str:
    """The tables and the verdicts, our figures beside the recorded peers'."""
    stored = record.read()
    digests = {cell["game"]: cell["digest"] for cell in found}
    same = [cell for cell in stored["cells"] if cell.get("digest") and cell["digest"] == digests.get(cell["game"])]
    asked = {(cell["game"], cell["masks"]) for cell in alive}
    other = [cell for cell in stored["cells"] if (cell["game"], cell["masks"]) in asked]
    parts = [table.recorded(found, same, arguments.methods), "\n".join(table.verdicts(found, same, arguments.methods))]
    if alive:
        parts.append(table.live([*alive, *other]))
    if stored["about"]:
        about = stored["about"]
        when = f"recorded {about['begun']} to {about['date']}"
        parts.append(f"peers: shapiq {about['packages'].get('shapiq')}, Python {about['python']}, {when}")
    return "\n\n".join(parts)


def parse(given: Sequence[str]) -> argparse.Namespace:
    def budget_list(text: str) -> list[str]:
        for part in text.split(","):
            int(part.removesuffix("n"))
        return text.split(",")

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    fits = [method for method in METHODS if method not in OWN_MASKS]
    parser = argparse.ArgumentParser(prog="python -m bench.faithfulness", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--games", type=Path, required=True, help="folder of recorded games (bench/games.py)")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=fits[::-1], help=", ".join(fits))
    parser.add_argument("--budgets", type=budget_list, default=list(BUDGETS), help=f"masks ({','.join(BUDGETS)})")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4], help="orders of training rows (0,1,2,3,4)")
    parser.add_argument("--live", type=names, default=games.can_be_made(), help="live games; '' for none")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    parser.add_argument(
        "--peers", metavar="PYTHON", help="an interpreter with shapiq: record the peers' missing figures"
    )
    parser.add_argument("--keep", type=Path, metavar="FILE", help="cells done so far: begin there, add to it")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the plots there (docs/images for the docs)")
    arguments = parser.parse_args(given)
    unknown = [method for method in arguments.methods if method not in fits]
    if unknown:
        parser.error(f"method {unknown[0]!r} can't be fitted to recorded masks; there is {', '.join(fits)}")
    return arguments


def loaded(arguments: argparse.Namespace) -> list[Game]:
    """The folder's games. Raises SystemExit before the first fit, not after an hour, if one has too few rows."""
    recorded = [games.load(path) for path in sorted(arguments.games.glob("*.npz"))]
    if not recorded:
        raise SystemExit(f"there is no .npz file in {arguments.games}")
    for game in recorded:
        for budget in budgets(game, arguments.budgets):
            game.check(budget)
    return recorded


def main(given: Sequence[str]) -> None:
    arguments = parse(given)
    recorded = loaded(arguments)
    import xgboost  # noqa: F401, PLC0415 - loaded before the clock runs

    kept, found, alive = Kept(arguments.keep), [], []
    if arguments.json:
        for cell in cells(recorded, arguments, kept):
            print(json.dumps({name: cell[name] for name in STABLE}), flush=True)
        return
    if arguments.peers:
        record.record(arguments.peers, requests(arguments.games, recorded, arguments))
    for cell in cells(recorded, arguments, kept):
        found.append(cell)
        print(f"\r{len(found)} fits", end="", file=sys.stderr, flush=True)
    for cell in live_cells(arguments, kept):
        alive.append(cell)
        print(f"\r{len(found)} and {len(alive)} fits", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(report(found, alive, arguments))
    if arguments.plots:
        for path in plots.write(arguments.plots, found, record.read()["cells"]):
            print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
