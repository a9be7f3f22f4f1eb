"""Do masks that are chosen where they teach most beat uniform ones? On recorded games, from their own rows.

    python -m bench.adaptive [--games DIR] [--seeds 0,1,2] [--json]

From the same first 64 masks, the rounds to 128 and 256 take either the next of a seeded order, or those rows of the
pool whose value the Gaussian process is least sure of, one after the other, each counted as seen before the next is
chosen. Both are fitted by `stack` and tested on the test rows. The pool is the game's own training rows: uniform masks,
of which a design may choose; on masks of its own making it could do more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import games, scores
from bench.table import geometric, markdown
from spex_proxy.engine import gaussian, posterior, stack
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.evidence import Evidence

FIRST, BUDGETS = 64, (128, 256)
Rows = NDArray[np.int64]


def fitted(game: games.Game, rows: Rows, seed: int) -> float:
    """R2 on the test rows."""
    evidence = Evidence(game.masks[rows], game.values[rows], np.zeros(len(rows), dtype=np.int64))
    return scores.r_squared(stack.fit(rows_of(evidence), seed).spectrum, game.test())


def least_sure(game: games.Game, known: Rows, pool: Rows, count: int) -> Rows:
    """Rows of the pool, (count,), by the process that the known rows teach: largest variance, greedily."""
    values = game.values[known]
    standard = (values - values.mean()) / values.std()
    z, candidates = gaussian.signs(game.masks[known]), gaussian.signs(game.masks[pool])
    seen = posterior.condition(z, standard, gaussian.learn(z, standard))
    half = np.linalg.solve(seen.factor, gaussian.kernel(z, candidates, seen.prior))
    covariance = gaussian.kernel(candidates, candidates, seen.prior) - half.T @ half
    chosen: list[int] = []
    for _ in range(count):
        at = int(np.argmax(np.where(np.isin(np.arange(len(pool)), chosen), -np.inf, np.diag(covariance))))
        chosen.append(at)
        column = covariance[:, at]
        covariance = covariance - np.outer(column, column) / (column[at] + seen.prior.noise)
    return pool[chosen]


def compare(game: games.Game, seed: int) -> list[dict[str, float | int | str]]:
    between = np.random.default_rng(seed).permutation(np.arange(2, len(game.values) - game.n_test))
    order: Rows = np.concatenate([[0, 1], between]).astype(np.int64)
    known, cells = order[:FIRST], []
    for budget in (each for each in BUDGETS if each <= len(order)):
        pool = np.setdiff1d(order, known)
        known = np.concatenate([known, least_sure(game, known, pool, budget - len(known))])
        cell = {"game": game.name, "masks": budget, "seed": seed, "uniform": fitted(game, order[:budget], seed)}
        cells.append({**cell, "chosen": fitted(game, known, seed)})
    return cells


def report(cells: Sequence[dict[str, float | int | str]]) -> str:
    rows, ratios = [], []
    for name, masks in dict.fromkeys((cell["game"], cell["masks"]) for cell in cells):
        some = [cell for cell in cells if (cell["game"], cell["masks"]) == (name, masks)]
        uniform, chosen = (float(np.median([float(cell[how]) for cell in some])) for how in ("uniform", "chosen"))
        ratios.append((1 - chosen) / (1 - uniform))
        rows.append([f"{name}, {masks}", f"{uniform:.3f}", f"{chosen:.3f}", f"{ratios[-1]:.2f}"])
    table = markdown(["game, masks", "uniform", "chosen", "left"], rows)
    return f"{table}\n\nleft = (1 - R2) of chosen over that of uniform masks: geometric mean {geometric(ratios):.3f}"


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.adaptive", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--games", type=Path, required=True, help="folder of recorded games (bench/games.py)")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    options = parser.parse_args(given)
    cells = []
    for path in sorted(options.games.glob("*.npz")):
        game = games.load(path)
        for seed in options.seeds:
            cells += compare(game, seed)
            print(f"\r{len(cells)} pairs of fits", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("\n".join(map(json.dumps, cells)) if options.json else report(cells))


if __name__ == "__main__":
    main(sys.argv[1:])
