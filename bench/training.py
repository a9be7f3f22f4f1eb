"""Training examples as players: do interactions predict retraining better, and do predicted flips really flip?

    python -m bench.training                            the tables, n = 40, 60 and 200 training images
    python -m bench.training --keep FILE                cells done so far: begin there, add to it
    python -m bench.training --players 40 --items 10    a part of it

The game is the plugin's own: images of the digits 3 and 8, a support vector machine trained anew for every coalition,
read by its margin for one test image. Each test image is a game of its own over the same 512 masks.

LDS (engine.datamodel) is over 300 other uniform masks. A flip is predicted by the fewest images whose removal the
stack's spectrum says takes the margin under 0 by more than its out-of-fold error; then they are removed, and trained.
Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench.table import markdown
from spex_proxy.engine import datamodel, designs, draws, walsh
from spex_proxy.engine.extremes import Smallest
from spex_proxy.engine.rows import Rows, rows_of
from spex_proxy.engine.surrogates import SURROGATES
from spex_proxy.facts.evidence import Evidence, Masks
from spex_proxy.facts.recipe import Recipe
from spex_proxy.plug import playing
from spex_proxy.plug.kinds import OpenGame
from spex_proxy_training.maker import Training

PLAYERS = (40, 60, 200)
ITEMS = 40
SEEDS = (0, 1)
MASKS, HELD_OUT = 512, 300
METHODS = ("stack", "order1")
CASES = 50
"""Predicted flips that are asked for."""
SEARCH_SECONDS = 5.0

Cell = dict[str, Any]
Readings = NDArray[np.float64]


def config(players: int, items: int, seed: int) -> dict[str, Any]:
    """What a person would write into a file."""
    return {
        "data": {"source": "digits", "classes": [3, 8]},
        "players": players,
        "test": items,
        "seed": seed,
        "trainer": {"estimator": "svm", "parameters": {"C": 10.0, "gamma": 0.05}},
    }


def readings(game: OpenGame, masks: Masks) -> Readings:
    """Shape (m, k). SystemExit for a coalition that could not be trained: there should be none here."""
    found = playing.measure(game, masks)
    if found.failures:
        raise SystemExit(f"a training failed: {next(iter(found.failures.values()))}")
    return found.readings.astype(np.float64)


def cells(players: int, items: int, seed: int, known: set[tuple[int, int, str]]) -> Iterator[Cell]:
    """One cell for each test image. A seed draws other images, to train on and to ask about."""
    game = Training().open(config(players, items, seed), None)
    if all((players, item, game.rules.digest) in known for item in range(items)):
        return
    recipe = Recipe(budget=MASKS, replicates=1)
    plan = designs.plan(players, recipe)
    begin = time.perf_counter()
    asked = readings(game, plan.masks)
    seconds = (time.perf_counter() - begin) / len(plan)
    tests = draws.uniform_masks(players, HELD_OUT, seed=1)
    real = readings(game, tests)
    for item in range(items):
        if (players, item, game.rules.digest) not in known:
            rows = rows_of(Evidence(plan.masks, asked[:, item], plan.replicates))
            cell: Cell = {
                "players": players,
                "seed": seed,
                "item": item,
                "digest": game.rules.digest,
                "training_seconds": seconds,
            }
            with threadpool_limits(limits=1, user_api="blas"):
                yield cell | measured(game, item, rows, recipe, tests, real[:, item])


def measured(game: OpenGame, item: int, rows: Rows, recipe: Recipe, tests: Masks, real: Readings) -> Cell:
    """LDS of each method, and the predicted flip with what came of it."""
    cell: Cell = {"margin": rows.value_full}
    for method in METHODS:
        begin = time.perf_counter()
        fit = SURROGATES[method](rows, recipe)
        cell[f"{method}_seconds"] = time.perf_counter() - begin
        found = datamodel.lds(walsh.predict(fit.spectrum, tests)[None], real[None])
        cell[f"{method}_lds"] = found.mean
        error = float(np.sqrt(np.mean((fit.predictions - rows.values[rows.uniform]) ** 2)))
        smallest = datamodel.brittle(fit.spectrum, error, time_limit=SEARCH_SECONDS)
        cell[f"{method}_flip"] = flip(game, item, smallest)
    return cell


def flip(game: OpenGame, item: int, smallest: Smallest) -> Cell | None:
    """The predicted set, removed and trained; None where none was found."""
    if smallest.players is None:
        return None
    removed = playing.removals(game, item, [smallest.players])[0]
    said = {"predicted": smallest.value, "measured": removed.after, "turns": removed.turns}
    return {"removed": len(smallest.players), "is_smallest": smallest.is_proven, **said}


def report(found: Sequence[Cell]) -> str:
    rows = []
    for players in sorted({cell["players"] for cell in found}):
        some = [cell for cell in found if cell["players"] == players]
        stack, order1 = (np.asarray([cell[f"{method}_lds"] for cell in some]) for method in METHODS)
        rows.append(
            [
                str(players), str(len(some)), f"**{np.nanmean(stack):.3f}**", f"{np.nanmean(order1):.3f}",
                f"{np.mean(stack > order1):.0%}", *[turned(some, method) for method in METHODS],
                sizes(some), f"{1000 * some[0]['training_seconds']:.0f} ms",
                f"{np.median([cell['stack_seconds'] for cell in some]):.1f} s",
            ]
        )  # fmt: skip
    head = ["training images", "test images", "LDS of stack", "of order 1", "stack above on", "flips, stack",
            "flips, order 1", "removed, median", "one training", "one fit"]  # fmt: skip
    return "\n\n".join([markdown(head, rows), *verdicts(found)])


def turned(some: Sequence[Cell], method: str) -> str:
    """How many predicted flips were real, of how many that were predicted."""
    flips = [cell[f"{method}_flip"] for cell in some if cell[f"{method}_flip"]]
    return f"{sum(one['turns'] for one in flips)} of {len(flips)}" if flips else "-"


def sizes(some: Sequence[Cell]) -> str:
    removed = [cell["stack_flip"]["removed"] for cell in some if cell["stack_flip"]]
    return f"{np.median(removed):.0f}" if removed else "-"


def verdicts(found: Sequence[Cell]) -> list[str]:
    """What was promised, and whether it holds; the flips are the first CASES in the order of drawing."""
    flips = [cell["stack_flip"] for cell in first_flips(found)]
    share = np.mean([one["turns"] for one in flips]) if flips else float("nan")
    above = [
        np.nanmean([cell["stack_lds"] for cell in found if cell["players"] == players])
        > np.nanmean([cell["order1_lds"] for cell in found if cell["players"] == players])
        for players in sorted({cell["players"] for cell in found})
    ]
    return [
        f"LDS of stack above order 1: {'yes' if all(above) else 'NO'} (for {sum(above)} of {len(above)} sizes).",
        f"Predicted flips confirmed by retraining: {sum(one['turns'] for one in flips)} of {len(flips)} ({share:.0%}; "
        f"asked for: 80% of {CASES}).",
    ]


def first_flips(found: Sequence[Cell]) -> list[Cell]:
    """Of each size in turn, its next test image with a predicted flip, until there are CASES."""
    with_flip = [cell for cell in found if cell["stack_flip"]]
    with_flip.sort(key=lambda cell: (cell["seed"], cell["item"], cell["players"]))
    return with_flip[:CASES]


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--players", type=lambda text: [int(part) for part in text.split(",")], default=list(PLAYERS))
    parser.add_argument("--items", type=int, default=ITEMS, help=f"test images ({ITEMS})")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=list(SEEDS))
    parser.add_argument("--keep", type=Path, metavar="FILE", help="cells done so far: begin there, add to it")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    options = parser.parse_args(given)
    lines = options.keep.read_text().splitlines() if options.keep and options.keep.exists() else []
    found: list[Cell] = [json.loads(line) for line in lines]
    known = {(cell["players"], cell["item"], cell["digest"]) for cell in found}
    for players, seed in itertools.product(options.players, options.seeds):
        for cell in cells(players, options.items, seed, known):
            found.append(cell)
            if options.keep:
                with options.keep.open("a") as out:
                    out.write(json.dumps(cell) + "\n")
            print(f"\r{len(found)} test images", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("\n".join(json.dumps(cell) for cell in found) if options.json else report(found))


if __name__ == "__main__":
    main(sys.argv[1:])
