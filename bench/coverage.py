"""Do the intervals hold what they say? On generated games, after adaptive stopping.

    python -m bench.coverage [--runs 200] [--first 0] [--method stack] [--processes 2] [--keep FILE]

Each run makes up a sparse hierarchical game of 12 to 60 players with noise, lets `decide` ask until it stops, and
looks at 10,000 fresh masks: does the 95% interval hold the R2 on them? And of the coefficients plus or minus
1.96 standard errors: do they hold the true ones, on a set of terms fixed beforehand (all single players, and
all pairs among players 0 to 4), and on the ten strongest interactions of the result (after selection)?
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.generated import Generated, hierarchical
from spex_proxy.engine import fidelity, walsh
from spex_proxy.engine.conclude import METHODS
from spex_proxy.engine.decide import Ask, Fit, decide
from spex_proxy.engine.draws import uniform_masks
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

FRESH = 10_000
BUDGETS = (128, 256, 512)
TARGETS = (0.6, 0.8, 0.9)
NOISE_SHARES = (0.0, 0.02, 0.1, 0.3)
WIDTH = 1.96
STRONGEST = 10


@dataclass(frozen=True, slots=True)
class Run:
    """What one game came to."""

    number: int
    n_players: int
    masks: int
    stopped: str
    low: float
    claimed: float
    high: float
    r2: float
    """On fresh masks."""
    fixed: tuple[int, int]
    """Terms fixed beforehand: held, of so many."""
    selected: tuple[int, int]


def play(number: int, method: str) -> Run:
    """One game, asked until `decide` stops. Equal numbers give equal games."""
    rng = np.random.default_rng([7, number])
    n = int(rng.integers(12, 61))
    game = hierarchical(rng, n, float(rng.choice(NOISE_SHARES)))
    recipe = Recipe(method=method, budget=int(rng.choice(BUDGETS)), seed=number, target_r2=float(rng.choice(TARGETS)))
    fit = answered(recipe, game, n, rng)
    fresh = uniform_masks(n, FRESH, 10_000_019 + number) if n > 16 else rng.random((FRESH, n)) < 0.5
    r2 = fidelity.r_squared(game.measure(fresh, rng), walsh.predict(fit.spectrum, fresh))
    figures = fit.fidelity
    fixed = [(player,) for player in range(n)] + list(combinations(range(5), 2))
    strong = 1 + np.argsort(-np.abs(fit.spectrum.coefficients[1:]), kind="stable")
    terms = fit.spectrum.players()
    selected = [terms[i] for i in strong if len(terms[i]) > 1][:STRONGEST]
    held = held_of(fit.spectrum, game.truth, fixed), held_of(fit.spectrum, game.truth, selected)
    return Run(
        number, n, figures.masks, str(fit.how["stopped"]), figures.r2_low, figures.r2, figures.r2_high, r2, *held
    )


def answered(recipe: Recipe, game: Generated, n: int, rng: np.random.Generator) -> Fit:
    """Ask and measure until there is a fit."""
    evidence = Evidence.empty(n)
    while isinstance(step := decide(recipe, evidence), Ask):
        evidence = Evidence(
            np.concatenate([evidence.masks, step.masks]),
            np.concatenate([evidence.values, game.measure(step.masks, rng)]),
            np.concatenate([evidence.replicates, step.replicates]),
        )
    return step


def held_of(found: Spectrum, truth: Spectrum, terms: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """How many true coefficients lie within 1.96 standard errors, of those terms that have an error."""
    if found.standard_errors is None:
        return 0, 0
    true = dict(zip(truth.players(), truth.coefficients, strict=True))
    stated = dict(zip(found.players(), zip(found.coefficients, found.standard_errors, strict=True), strict=True))
    inside = [abs(stated[t][0] - true.get(t, 0.0)) <= WIDTH * stated[t][1] for t in terms if t in stated]
    return int(sum(inside)), len(inside)


def table(runs: Sequence[Run]) -> str:
    """Coverage over all runs, and by why they stopped and how many masks they took."""
    head = f"{'runs':<34}{'':>5}{'inside':>8}{'below':>7}{'above':>7}{'width':>7}{'claimed':>9}{'fresh':>7}"
    lines = [head, "-" * len(head)]
    groups: dict[str, list[Run]] = {"all": list(runs)}
    for run in runs:
        groups.setdefault(f"stopped: {run.stopped}"[:33], []).append(run)
    for run in runs:
        groups.setdefault(f"masks: {size_of(run.masks)}", []).append(run)
    for name, some in groups.items():
        lines.append(line(name, some))
    for name, kind in (("terms fixed beforehand", "fixed"), ("strongest interactions, selected", "selected")):
        held, total = np.sum([getattr(run, kind) for run in runs], axis=0)
        lines.append(f"{name}: {held}/{total} = {held / max(total, 1):.3f} within 1.96 standard errors")
    lines.append("below, above: R2 on fresh masks under the interval's lower end, over its upper end.")
    return "\n".join(lines)


def line(name: str, some: Sequence[Run]) -> str:
    r2, low, high = (column(some, key) for key in ("r2", "low", "high"))
    below, above = float((r2 < low).mean()), float((r2 > high).mean())
    middle = [float(np.median(x)) for x in (high - low, column(some, "claimed"), r2)]
    return (
        f"{name:<34}{len(some):>5}{1 - below - above:>8.3f}{below:>7.3f}{above:>7.3f}"
        f"{middle[0]:>7.3f}{middle[1]:>9.3f}{middle[2]:>7.3f}"
    )


def column(some: Sequence[Run], key: str) -> NDArray[np.float64]:
    return np.asarray([getattr(run, key) for run in some], dtype=np.float64)


def kept(path: Path | None, numbers: range) -> list[Run]:
    """Those runs of an earlier call that count for this one: its file is for one method and one engine."""
    lines = path.read_text().splitlines() if path and path.exists() else []
    found = [
        Run(**{**cell, "fixed": tuple(cell["fixed"]), "selected": tuple(cell["selected"])})
        for cell in map(json.loads, lines)
    ]
    return [run for run in found if run.number in numbers]


def played(numbers: Sequence[int], method: str, processes: int) -> Iterator[Run]:
    """Each run as soon as it is done."""
    with ProcessPoolExecutor(processes) as pool:
        for done in as_completed([pool.submit(play, number, method) for number in numbers]):
            yield done.result()


def size_of(masks: int) -> str:
    return next((f"up to {size}" for size in (64, 128, 256) if masks <= size), "up to 512")


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first game")
    parser.add_argument("--method", choices=list(METHODS), default="stack")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="runs done so far: begin there, add to it")
    options = parser.parse_args(given)
    numbers = range(options.first, options.first + options.runs)
    runs = kept(options.keep, numbers)
    missing = sorted(set(numbers) - {run.number for run in runs})
    for run in played(missing, options.method, options.processes):
        runs.append(run)
        print(f"\r{len(runs)} of {options.runs} runs", end="", file=sys.stderr, flush=True)
        if options.keep:
            with options.keep.open("a") as out:
                out.write(json.dumps(asdict(run)) + "\n")
    print(file=sys.stderr)
    print(table(sorted(runs, key=lambda run: run.number)))


if __name__ == "__main__":
    main(sys.argv[1:])
