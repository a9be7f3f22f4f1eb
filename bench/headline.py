"""How many queries does SPEX need for what ProxySPEX finds? At equal R2, on one game of each kind of players.

    python -m bench.headline                            the table, and docs/images/headline.svg
    python -m bench.headline --games features,training  some of the games
    python -m bench.headline --keep FILE                fits done so far: begin there, add to it
    python -m bench.headline --model FOLDER             where SmolLM2-135M-Instruct is, for the game of its heads

Games, all live, since SPEX brings masks of its own:

    features      the 64 pixels of one image of a digit; the margin of a support vector machine that tells 3 from 8;
                  a masked pixel is as bright as on average
    training      40 images as training examples (bench.training's game, its first test image)
    components    the 54 heads of layers 24 to 29 of SmolLM2-135M-Instruct, zeroed and rescaled; logit difference,
                  the mean over two questions (the plugin's own game)

Both methods are ours, `spex` and `proxyspex`. R2 is on 1,000 fresh uniform masks (500 of heads). A budget is doubled
until R2 is .8 or the budget is spent; queries are all masks that the method's plan asks, those for judging it too.
Where R2 passes a level between two budgets, queries are interpolated on a log scale; where the smallest design that a
method can work with passes it, they are that design's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench import plots, training
from bench.table import markdown
from spex_proxy.engine import designs, fidelity, walsh
from spex_proxy.engine.rows import rows_of
from spex_proxy.engine.surrogates import SURROGATES
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence, Masks, Values
from spex_proxy.facts.recipe import Recipe
from spex_proxy.plug.kinds import OpenGame

LEVELS = (0.6, 0.7, 0.8)
SMALLEST = {"proxyspex": 24, "spex": 24}
LARGEST = {"features": 16_384, "training": 16_384, "components": 8192}
"""A pass through a language model costs what a thousand trainings on 40 small images do."""
SEEDS = {"features": (0, 1, 2), "training": (0, 1, 2), "components": (0,)}
TEST_MASKS = {"features": 1000, "training": 1000, "components": 500}
INK = {"features": "#3a7ca5", "training": "#b3261e", "components": "#5b8c5a"}
MODEL = Path(".models/smollm2-135m-instruct")

Cell = dict[str, Any]
Value = Callable[[Masks], Values]


class Known:
    """A value function that is asked each mask once."""

    def __init__(self, n: int, value: Value) -> None:
        self.n = n
        self._value = value
        self._values: dict[bytes, float] = {}

    def __call__(self, masks: Masks) -> Values:
        keys = [row.tobytes() for row in np.packbits(masks, axis=1)]
        new = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self._values}
        if new:
            self._values |= dict(zip(new, self._value(masks[list(new.values())]).tolist(), strict=True))
        return np.asarray([self._values[key] for key in keys])


def of_game(game: OpenGame, items: Sequence[int]) -> Known:
    """The mean of some of its readings."""

    def value(masks: Masks) -> Values:
        mean: Values = training.readings(game, masks)[:, list(items)].mean(axis=1)
        return mean

    return Known(len(game.rules.players), value)


def features(_model: Path) -> Known:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - one game needs it
    from sklearn.svm import SVC  # noqa: PLC0415

    images, labels = load_digits(return_X_y=True)
    chosen = np.flatnonzero(np.isin(labels, (3, 8)))
    points, sides = images[chosen] / 16.0, np.where(labels[chosen] == 8, 1.0, -1.0)
    machine, average = SVC(C=10.0, gamma=0.05).fit(points[1:], sides[1:]), points[1:].mean(axis=0)
    asked, side = points[0], float(sides[0])

    def value(masks: Masks) -> Values:
        parts: list[NDArray[np.float64]] = [
            machine.decision_function(np.where(masks[at : at + 4096], asked, average))
            for at in range(0, len(masks), 4096)
        ]
        return side * np.concatenate(parts)

    return Known(images.shape[1], value)


def training_images(_model: Path) -> Known:
    return of_game(training.Training().open(training.config(40, 1, 0), None), [0])


def components(model: Path) -> Known:
    from spex_proxy_components.maker import Components  # noqa: PLC0415 - it loads torch and transformers

    asked = [
        {"prompt": "The capital of France is", "answer": " Paris", "contrast": " Rome"},
        {"prompt": "The opposite of hot is", "answer": " cold", "contrast": " warm"},
    ]
    config = {"model": str(model), "layers": [24, 30], "questions": asked, "value": "logit_difference", "batch": 256}
    return of_game(Components().open(config, None), [0, 1])


GAMES: dict[str, Callable[[Path], Known]] = {
    "features": features,
    "training": training_images,
    "components": components,
}


def cells(name: str, known: Known, found: Sequence[Cell]) -> Iterator[Cell]:
    """Budget by budget, until the highest level is reached."""
    test = np.random.default_rng(10_000).random((TEST_MASKS[name], known.n)) < 0.5
    for seed in SEEDS[name]:
        for method in SMALLEST:
            budget = SMALLEST[method]
            while budget <= LARGEST[name]:
                same = [
                    c for c in found if (c["game"], c["method"], c["seed"], c["budget"]) == (name, method, seed, budget)
                ]
                cell = same[0] if same else measured(name, known, method, budget, seed, test)
                if not same:
                    yield cell
                if cell.get("r2", -1.0) >= LEVELS[-1]:
                    break
                budget *= 2


def measured(name: str, known: Known, method: str, budget: int, seed: int, test: Masks) -> Cell:
    """One plan, asked, fitted, tested. A budget that the method can't work with is told."""
    cell: Cell = {"game": name, "n": known.n, "method": method, "seed": seed, "budget": budget}
    recipe = Recipe(method=method, budget=budget, replicates=1, seed=seed)
    try:
        plan = designs.plan(known.n, recipe)
        rows = rows_of(Evidence(plan.masks, known(plan.masks), plan.replicates))
        with threadpool_limits(limits=1, user_api="blas"):
            spectrum = SURROGATES[method](rows, recipe).spectrum
    except BadEvidence as error:
        return {**cell, "failed": str(error)}
    return {**cell, "asked": len(plan), "r2": fidelity.r_squared(known(test), walsh.predict(spectrum, test))}


def queries(found: Sequence[Cell], level: float) -> tuple[float, bool]:
    """Queries at which one method's fits of one game and seed first reach a level, and whether it was reached.

    Not reached: the most that were asked. Reached at once: the fewest that were asked.
    """
    fits = sorted((cell["asked"], cell["r2"]) for cell in found if "r2" in cell)
    below: tuple[float, float] | None = None
    for asked, r2 in fits:
        if r2 >= level:
            if below is None or r2 == below[1]:
                return float(asked), True
            share = (level - below[1]) / (r2 - below[1])
            return float(np.exp(np.log(below[0]) + share * np.log(asked / below[0]))), True
        below = (asked, r2)
    return (float(fits[-1][0]) if fits else float("nan")), False


def ratios(found: Sequence[Cell], name: str, level: float) -> list[tuple[float, float, bool, bool]]:
    """For each seed: queries of proxyspex and of spex, and whether each reached the level."""
    out = []
    for seed in sorted({cell["seed"] for cell in found if cell["game"] == name}):
        of = {m: [c for c in found if (c["game"], c["seed"], c["method"]) == (name, seed, m)] for m in SMALLEST}
        (proxy, is_proxy), (spex, is_spex) = queries(of["proxyspex"], level), queries(of["spex"], level)
        out.append((proxy, spex, is_proxy, is_spex))
    return out


def summary(found: Sequence[Cell], name: str, level: float) -> Cell:
    """Medians over seeds. `is_bound`: spex did not get there on some seed, so that the ratio is at least so much."""
    some = ratios(found, name, level)
    proxy, spex = (float(np.median([one[at] for one in some])) for at in (0, 1))
    ratio = float(np.median([one[1] / one[0] for one in some]))
    return {
        "game": name, "level": level, "proxyspex": proxy, "spex": spex, "ratio": ratio,
        "is_known": all(one[2] for one in some), "is_bound": not all(one[3] for one in some), "seeds": len(some),
    }  # fmt: skip


def report(found: Sequence[Cell]) -> str:
    rows = []
    for name in [name for name in GAMES if any(cell["game"] == name for cell in found)]:
        n = next(cell["n"] for cell in found if cell["game"] == name)
        for level in LEVELS:
            one = summary(found, name, level)
            least = "at least " if one["is_bound"] else ""
            ratio = f"**{least}{one['ratio']:.1f}**" if one["is_known"] else "proxyspex did not reach it"
            asked = f"{one['spex']:,.0f}" if not one["is_bound"] else f"not with {one['spex']:,.0f}"
            rows.append([name, str(n), f"{level:.1f}", f"{one['proxyspex']:,.0f}", asked, ratio, str(one["seeds"])])
    head = ["game", "players", "R2", "queries of proxyspex", "of spex", "ratio", "seeds"]
    return markdown(head, rows)


def drawn(found: Sequence[Cell]) -> str:
    """The ratio at each level, a line for each game; log scale. An arrow where it is a lower bound."""
    high, wide, left, top = 300.0, 380.0, 60.0, 50.0
    body = [plots.text(10, 20, "Queries of spex over queries of proxyspex at equal R2, both ours; log scale")]

    def y_of(ratio: float) -> float:
        return top + high * (1.0 - float(np.clip(np.log2(ratio) / 5.0, 0.0, 1.0)))

    for tick in (1, 2, 4, 8, 16, 32):
        y = y_of(tick)
        body += [
            plots.line(left, y, left + wide, y),
            plots.text(left - 8, y + 4, f"{tick}x", 'text-anchor="end" class="small"'),
        ]
    for at, level in enumerate(LEVELS):
        body.append(
            plots.text(left + wide * (at + 0.5) / 3, top + high + 20, f"R2 = {level:.1f}", 'text-anchor="middle"')
        )
    for number, name in enumerate(name for name in GAMES if any(cell["game"] == name for cell in found)):
        some = [(at, summary(found, name, level)) for at, level in enumerate(LEVELS)]
        points = [(left + wide * (at + 0.5) / 3, y_of(one["ratio"]), one) for at, one in some if one["is_known"]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{INK[name]}" stroke-width="1.5"/>')
        for x, y, one in points:
            words = f"{name}: {'at least ' if one['is_bound'] else ''}{one['ratio']:.1f}"
            body.append(plots.mark(x, y, INK[name], words, one["is_bound"]))
            if one["is_bound"]:
                body.append(plots.line(x, y - 6, x, y - 22, f'stroke="{INK[name]}" stroke-width="2"'))
        y = top + 14 + 22.0 * number
        body += [plots.mark(left + wide + 20, y, INK[name], name), plots.text(left + wide + 30, y + 4, name)]
    body.append(
        plots.text(
            left, top + high + 44, "Hollow with a line above: spex did not get there; a lower bound.", 'class="small"'
        )
    )
    return plots.frame(left + wide + 130, top + high + 60, "Queries of spex over queries of proxyspex", body)


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.headline", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--games", type=lambda text: text.split(","), default=list(GAMES), help=", ".join(GAMES))
    parser.add_argument("--model", type=Path, default=MODEL, help=f"folder of SmolLM2-135M-Instruct ({MODEL})")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="fits done so far: begin there, add to it")
    parser.add_argument("--plot", type=Path, default=Path("docs/images/headline.svg"), help="where the plot goes")
    options = parser.parse_args(given)
    lines = options.keep.read_text().splitlines() if options.keep and options.keep.exists() else []
    found: list[Cell] = [json.loads(line) for line in lines]
    for name in options.games:
        if name not in GAMES:
            parser.error(f"there is no game {name!r}; there is {', '.join(GAMES)}")
        for cell in cells(name, GAMES[name](options.model), found):
            found.append(cell)
            if options.keep:
                with options.keep.open("a") as out:
                    out.write(json.dumps(cell) + "\n")
            print(f"\r{len(found)} fits", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(report(found))
    options.plot.write_text(drawn(found))


if __name__ == "__main__":
    main(sys.argv[1:])
