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
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

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
"""Uniform masks that nobody fits. A smaller budget is tested on those of the larger ones too: 300 alone leave R2
uncertain by some .03 where it is .4."""
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

    return component_pruning.kept_cells(options.games / f"chosen {group} {options.masks}.json", game.rules.digest, make)


def speed(options: argparse.Namespace) -> None:
    from bench import component_speed  # noqa: PLC0415 - torch, which fits don't need

    print(component_speed.table(options.model))


def known(path: Path) -> tuple[dict[bytes, float], int]:
    """Packed mask -> value, and how many players, of a file that `faithfulness` wrote."""
    with np.load(path) as data:
        pairs = zip(data["masks"], data["values"], strict=True)
        return {row.tobytes(): float(value) for row, value in pairs}, int(data["n_players"])


def unseen(n_players: int, budget: int, values: Container[bytes]) -> Masks:
    """The test masks, and what was measured of the uniform ones beyond a budget, (t, n): no fit of it saw them."""
    beyond = plan(n_players, "stack", max(BUDGETS))[budget:]
    return np.concatenate([tests(n_players), *(mask[None] for mask in beyond if np.packbits(mask).tobytes() in values)])


def fitted(path: Path, group: str) -> list[dict[str, object]]:
    """R2 of each method and budget on unseen masks. A cell that lacks its masks, or can't be fitted, says so."""
    values, n = known(path)

    def of(masks: Masks) -> NDArray[np.float64]:
        return np.asarray([values[row.tobytes()] for row in np.packbits(masks, axis=1)])

    cells = []
    for budget in BUDGETS:
        held_out = unseen(n, budget, values)
        wanted, said = of(held_out), dict[str, NDArray[np.float64]]()
        for method in METHODS:
            cell: dict[str, object] = {"group": group, "players": n, "masks": budget, "method": method}
            try:
                masks = plan(n, method, budget)
                said[method] = walsh.predict(spectrum(method, budget, rows(masks, of(masks))), held_out)
                cell |= {"r2": fidelity.r_squared(wanted, said[method]), "tests": len(held_out)}
                if method != "stack" and "stack" in said:
                    cell["lead"], cell["within"] = ahead(wanted, said["stack"], said[method])
            except KeyError:
                cell["failed"] = "not measured"
            except BadEvidence as error:
                cell["failed"] = str(error)
            cells.append(cell)
            print(f"\r{group} {budget} {method}   ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return cells


def ahead(values: NDArray[np.float64], one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """R2 of one's predictions less that of the other's, and half its 95% interval: paired over masks, all (t,)."""
    gains = ((values - other) ** 2 - (values - one) ** 2) / float(values.var())
    return float(gains.mean()), 1.96 * float(gains.std(ddof=1)) / float(np.sqrt(len(gains)))


def report(cells: Sequence[dict[str, Any]]) -> str:
    """A line for each group and budget."""
    by_key = {(cell["group"], cell["masks"], cell["method"]): cell for cell in cells}
    lines, gained = [], []
    for group, masks in dict.fromkeys((cell["group"], cell["masks"]) for cell in cells):
        some = {method: by_key[group, masks, method] for method in METHODS}
        shown = [f"{cell['r2']:.3f}" if "r2" in cell else "–" for cell in some.values()]
        lasso = some["lasso"]
        gain = f"{lasso['lead']:+.3f} ± {lasso['within']:.3f}" if "lead" in lasso else "–"
        tested = str(lasso.get("tests", "–"))
        lines.append([f"layers {group}, {masks:,} masks", str(lasso["players"]), *shown, gain, tested])
        if "lead" in lasso:
            gained.append((float(lasso["lead"]), f"{group}, {masks}"))
    worst = min(gained)
    met = "met" if -worst[0] <= MOST_BEHIND else "missed"
    said = f"stack - lasso is {worst[0]:+.4f} at least ({worst[1]}); -{MOST_BEHIND} is allowed: {met}"
    failed = sorted(
        {f"{cell['group']}, {cell['masks']}, {cell['method']}: {cell['failed']}" for cell in cells if "failed" in cell}
    )
    return "\n".join(
        [markdown(["heads of", "players", *METHODS, "stack - lasso", "tested on"], lines), "", said, *failed]
    )


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
