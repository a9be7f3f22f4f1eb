"""Attention heads of a language model as players: speed of ablation, faithfulness, pruning.

    python -m bench.components speed --model DIR            masks a second, batched against one pass a mask
    python -m bench.components measure --model DIR          what the next needs of the model
    python -m bench.components faithfulness                 R2 on held-out masks of stack, lasso and spex
    python -m bench.components pruning --model DIR          which heads to keep, re-tested on held-out questions

What is measured for the last two goes into files of --games (outside the repository), so that fits can be repeated
without a model pass; an interrupted run goes on where it was. --threads 1 is the fastest where others use the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import component_pruning
from bench.component_games import GROUPS, Measured, opened, questions
from bench.table import markdown
from spex_proxy.engine import designs, draws, fidelity, walsh
from spex_proxy.engine.conclude import conclude
from spex_proxy.engine.rows import Rows, rows_of
from spex_proxy.engine.surrogates import SURROGATES
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence, Masks
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.plug.kinds import OpenGame

LISTS, SEED = 4, 1
"""Training questions: two of each list."""
LISTS_OF_ALL = 2
"""Where all layers are ablated none is spared, and a mask costs most."""
BUDGETS = (256, 512, 1000, 2000)
TESTS = 300
"""Uniform masks that nobody fits."""
TEST_SEED = 977
METHODS = ("stack", "lasso", "spex")
LASSO = "order1"
"""Its name among the engine's surrogates."""
MOST_BEHIND = 0.01


def plan(n_players: int, method: str, budget: int) -> Masks:
    """Training masks of a method: uniform ones, of which a smaller budget has the first; or SPEX's own."""
    if method == "spex":
        return designs.plan(n_players, Recipe(method="spex", budget=budget, replicates=1, seed=0)).masks
    ends = np.stack([np.ones(n_players, dtype=np.bool_), np.zeros(n_players, dtype=np.bool_)])
    return np.concatenate([ends, draws.uniform_masks(n_players, budget - 2, 0)])


def tests(n_players: int) -> Masks:
    return draws.uniform_masks(n_players, TESTS, TEST_SEED)


def rows(masks: Masks, values: NDArray[np.float64]) -> Rows:
    return rows_of(Evidence(masks, values, np.zeros(len(masks), dtype=np.int64)))


def spectrum(method: str, budget: int, given: Rows) -> Spectrum:
    if method == "lasso":
        return SURROGATES[LASSO](given, Recipe(seed=0)).spectrum
    return conclude(Recipe(method=method, budget=budget, replicates=1, seed=0), given).spectrum


def measure_all(kept: Measured, game: OpenGame, methods: Sequence[str]) -> None:
    """Everything that faithfulness asks of one game, what matters most first."""
    n = kept.n_players
    kept.values(game, tests(n))
    kept.values(game, plan(n, "stack", max(BUDGETS)))
    if "spex" in methods:  # masks of its own, which no other method reads
        for budget in (1000, 512, 256, 2000):
            kept.values(game, plan(n, "spex", budget))


def measure(options: argparse.Namespace) -> None:
    for group in options.groups:
        game = opened(options.model, group, questions(LISTS_OF_ALL if group == "all" else LISTS, SEED))
        kept = Measured.of(options.games, f"heads {group}", game)
        measure_all(kept, game, options.methods)
        game.close()
        print(file=sys.stderr)


def faithfulness(options: argparse.Namespace) -> None:
    cells = []
    for group in options.groups:
        cells += fitted(options.games / f"heads {group}.npz", group)
    print("\n".join(map(json.dumps, cells)) if options.json else report(cells))


def pruning(options: argparse.Namespace) -> None:
    """Three sizes in each group, that of all layers left out."""
    cells = []
    for group in options.groups:
        if group != "all":
            cells += pruned(options, group)
    print("\n".join(map(json.dumps, cells)) if options.json else component_pruning.report(cells))
    if options.plots:
        (options.plots / "pruning.svg").write_text(component_pruning.curve(cells))


def pruned(options: argparse.Namespace, group: str) -> list[component_pruning.Cell]:
    game = opened(options.model, group, questions(LISTS, SEED))

    def make() -> list[component_pruning.Cell]:
        kept = Measured.of(options.games, f"heads {group}", game)
        masks = plan(kept.n_players, "stack", options.masks)
        given = rows(masks, kept.values(game, masks))
        spectra = {name: spectrum(name, options.masks, given) for name in ("stack", "lasso")}
        return component_pruning.measure(options.model, group, game, kept, spectra)

    return component_pruning.kept_cells(
        options.games / f"pruning {group} {options.masks}.json", game.rules.digest, make
    )


def speed(options: argparse.Namespace) -> None:
    from bench import component_speed  # noqa: PLC0415 - torch, which fits don't need

    print(component_speed.table(options.model))


def known(path: Path) -> tuple[dict[bytes, float], int]:
    """Packed mask -> value, and how many players, of a file that `faithfulness` wrote."""
    with np.load(path) as data:
        pairs = zip(data["masks"], data["values"], strict=True)
        return {row.tobytes(): float(value) for row, value in pairs}, int(data["n_players"])


def fitted(path: Path, group: str) -> list[dict[str, object]]:
    """R2 of each method and budget on the test masks. A cell that lacks its masks, or can't be fitted, says so."""
    values, n = known(path)

    def of(masks: Masks) -> NDArray[np.float64]:
        return np.asarray([values[row.tobytes()] for row in np.packbits(masks, axis=1)])

    held_out, cells = tests(n), []
    for budget in BUDGETS:
        for method in METHODS:
            cell: dict[str, object] = {"group": group, "players": n, "masks": budget, "method": method}
            try:
                masks = plan(n, method, budget)
                found = spectrum(method, budget, rows(masks, of(masks)))
                cell["r2"] = fidelity.r_squared(of(held_out), walsh.predict(found, held_out))
            except KeyError:
                cell["failed"] = "not measured"
            except BadEvidence as error:
                cell["failed"] = str(error)
            cells.append(cell)
            print(f"\r{group} {budget} {method}   ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return cells


def report(cells: Sequence[dict[str, object]]) -> str:
    """A line for each group and budget."""
    by_key = {(cell["group"], cell["masks"], cell["method"]): cell for cell in cells}
    lines, behind = [], []
    for group, masks in dict.fromkeys((cell["group"], cell["masks"]) for cell in cells):
        some = [by_key[group, masks, method] for method in METHODS]
        shown = [f"{cell['r2']:.3f}" if "r2" in cell else "–" for cell in some]
        lines.append([f"layers {group}, {masks:,} masks", str(some[0]["players"]), *shown])
        if "r2" in some[0] and "r2" in some[1]:
            behind.append((float(str(some[1]["r2"])) - float(str(some[0]["r2"])), f"{group}, {masks}"))
    worst = max(behind)
    met = "met" if worst[0] <= MOST_BEHIND else "missed"
    said = f"stack is behind lasso by {worst[0]:.4f} at most ({worst[1]}); {MOST_BEHIND} is allowed: {met}"
    failed = sorted(
        {f"{cell['group']}, {cell['masks']}, {cell['method']}: {cell['failed']}" for cell in cells if "failed" in cell}
    )
    return "\n".join([markdown(["heads of", "players", *METHODS], lines), "", said, *failed])


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.components", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("speed", "measure", "faithfulness", "pruning"))
    parser.add_argument("--model", default=".models/smollm2-135m-instruct", help="folder or name of a model")
    parser.add_argument("--games", type=Path, default=Path(tempfile.gettempdir()) / "spex-components", help="folder")
    parser.add_argument("--groups", type=lambda text: text.split(","), default=list(GROUPS), help=", ".join(GROUPS))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS), help="whose masks")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the curve there (docs/images for the docs)")
    parser.add_argument("--masks", type=int, default=max(BUDGETS), help="that spectra for pruning are fitted to")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as many as it likes")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    options = parser.parse_args(given)
    if options.threads:
        import torch  # noqa: PLC0415 - fits alone don't need it

        torch.set_num_threads(options.threads)
    {"speed": speed, "measure": measure, "faithfulness": faithfulness, "pruning": pruning}[options.what](options)


if __name__ == "__main__":
    main(sys.argv[1:])
