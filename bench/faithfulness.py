"""How well do our explanations predict masks that nobody fitted? On recorded games.

    python -m bench.faithfulness --games DIR [--methods stack,proxyspex] [--budgets 128,512] [--seeds 0,1] [--json]

DIR holds files NAME.npz: `masks` (bits packed along axis 1), `n`, `values`, `n_test`.
Row 0 keeps everything, row 1 nothing, the last `n_test` rows are for testing only. A
seed is a permutation of the rows between; a fit sees rows 0 and 1 and the first of
the permuted ones, N masks in all. With --json one object a line, in the order of
fitting: game, method, masks, seed, r2, fit_seconds. That form is for other tools
and stays as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine import fidelity, walsh
from spex_proxy.engine.conclude import METHODS, conclude
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Game:
    """A recorded game."""

    name: str
    masks: NDArray[np.bool_]
    """Shape (rows, n)."""
    values: NDArray[np.float64]
    """Shape (rows,)."""
    n_test: int

    def training(self, budget: int, seed: int) -> Evidence:
        """Full, empty, and the first of the seed's order of training rows: `budget` in all."""
        between = np.random.default_rng(seed).permutation(np.arange(2, len(self.values) - self.n_test))
        if budget > len(between) + 2:
            raise SystemExit(f"{self.name} has {len(between) + 2} training rows, not {budget}")
        rows = np.concatenate([[0, 1], between])[:budget]
        return Evidence(self.masks[rows], self.values[rows], np.zeros(budget, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Cell:
    """One fit. The fields and their names are what --json prints."""

    game: str
    method: str
    masks: int
    seed: int
    r2: float
    """On the test rows."""
    fit_seconds: float
    """Wall clock of the whole conclusion, judging included."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What the fit said of itself."""

    r2: float
    low: float
    high: float


def load(path: Path) -> Game:
    """Raises SystemExit, naming the file, for what is no recorded game."""
    try:
        with np.load(path) as stored:
            n, values = int(stored["n"]), np.asarray(stored["values"], dtype=np.float64)
            masks = np.unpackbits(stored["masks"], axis=1)[:, :n].astype(np.bool_)
            game = Game(path.stem, masks, values, int(stored["n_test"]))
    except (KeyError, ValueError) as error:
        raise SystemExit(f"{path} is not a recorded game: {error}") from error
    if len(masks) != len(values) or not 0 < game.n_test < len(values) - 2:
        raise SystemExit(f"{path}: {len(masks)} masks, {len(values)} values, {game.n_test} of them for testing")
    return game


def measure(game: Game, method: str, budget: int, seed: int) -> tuple[Cell, Claim]:
    """Fit and test once."""
    rows = rows_of(game.training(budget, seed))
    begin = time.perf_counter()
    fit = conclude(Recipe(method=method), rows)
    seconds = time.perf_counter() - begin
    values = game.values[-game.n_test :]
    r2 = fidelity.r_squared(values, walsh.predict(fit.spectrum, game.masks[-game.n_test :]))
    said = fit.fidelity
    return Cell(game.name, method, budget, seed, r2, seconds), Claim(said.r2, said.r2_low, said.r2_high)


def cells(games: Sequence[Game], arguments: argparse.Namespace) -> Iterator[tuple[Cell, Claim]]:
    """All fits, one after the other."""
    for game in games:
        for budget in arguments.budgets:
            for seed in arguments.seeds:
                for method in arguments.methods:
                    yield measure(game, method, budget, seed)


def table(found: Sequence[tuple[Cell, Claim]]) -> str:
    """One line per game, budget and method: medians over seeds."""
    head = f"{'game':<18}{'masks':>6}  {'method':<10}{'R2':>7}{'claimed':>9}{'inside':>8}{'seconds':>9}"
    lines = [head, "-" * len(head)]
    keys = dict.fromkeys((cell.game, cell.masks, cell.method) for cell, _ in found)
    for key in keys:
        some = [(cell, claim) for cell, claim in found if (cell.game, cell.masks, cell.method) == key]
        r2, seconds = (np.median([getattr(cell, name) for cell, _ in some]) for name in ("r2", "fit_seconds"))
        claimed = np.median([claim.r2 for _, claim in some])
        inside = sum(claim.low <= cell.r2 <= claim.high for cell, claim in some)
        count = f"{inside}/{len(some)}"
        lines.append(f"{key[0]:<18}{key[1]:>6}  {key[2]:<10}{r2:>7.3f}{claimed:>9.3f}{count:>8}{seconds:>9.2f}")
    for method in dict.fromkeys(cell.method for cell, _ in found):
        left = [1.0 - cell.r2 for cell, _ in found if cell.method == method]
        mean = np.exp(np.mean(np.log(np.maximum(left, 1e-12))))
        lines.append(f"{method}: geometric mean of 1 - R2 over all {len(left)} fits: {mean:.4f}")
    lines.append("R2 on the test rows; claimed: out of fold; inside: R2 within the claimed 95% interval. Medians.")
    return "\n".join(lines)


def parse(given: Sequence[str]) -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(prog="python -m bench.faithfulness", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--games", type=Path, required=True, help="folder of recorded games, for example ../shared/games"
    )
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS), help=", ".join(METHODS))
    parser.add_argument("--budgets", type=numbers, default=[128, 512], help="numbers of masks (default 128,512)")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2, 3, 4], help="orders of training rows (0,1,2,3,4)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    arguments = parser.parse_args(given)
    unknown = [method for method in arguments.methods if method not in METHODS]
    if unknown:
        parser.error(f"method {unknown[0]!r} is unknown; there is {', '.join(METHODS)}")
    return arguments


def main(given: Sequence[str]) -> None:
    arguments = parse(given)
    games = [load(path) for path in sorted(arguments.games.glob("*.npz"))]
    if not games:
        raise SystemExit(f"there is no .npz file in {arguments.games}")
    import xgboost  # noqa: F401, PLC0415 - loaded before the clock runs

    found = []
    for cell, claim in cells(games, arguments):
        found.append((cell, claim))
        if arguments.json:
            print(json.dumps(asdict(cell)), flush=True)
        else:
            print(f"\r{len(found)} fits", end="", file=sys.stderr, flush=True)
    if not arguments.json:
        print(file=sys.stderr)
        print(table(found))


if __name__ == "__main__":
    main(sys.argv[1:])
