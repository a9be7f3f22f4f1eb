"""Which heads to keep: chosen from spectra, tested on questions that no spectrum has seen.

As in ProxySPEX's appendix C.2: choose the heads of a group of layers that are kept at a given share, by the best subset
of a spectrum, by lasso's largest coefficients, and as the best of N random sets on the training questions.

The best set of a spectrum is partly the best of its errors, and of a few training questions' chances. So a spectrum
is read in several ways, and questions that are neither training's nor the test's choose among the sets that these
propose (`chosen`); of the random sets as many, the best on the training questions, are put to the same choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import plots
from bench.component_games import ASKED, Measured, opened, questions
from bench.table import markdown
from spex_proxy.engine import extremes
from spex_proxy.facts.evidence import Masks
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.plug.kinds import OpenGame

SHARES = (0.50, 0.66, 0.83)
RANDOM = 100
"""Random sets of each size, of which the best on the training questions is re-tested."""
HELD_OUT, HELD_OUT_SEED = 104, 2
"""Lists of the test: 208 questions."""
CHOOSING, CHOOSING_SEED = 52, 3
"""Lists on which one of several proposals is chosen."""
PROPOSED = 4
"""Sets of each size, at most, that are put to the choice."""
CHOICES = ("chosen", "stack", "lasso", "random")
OURS = CHOICES[0]
INK = {"chosen": "#b3261e", "stack": "#d98c86", "lasso": "#3a7ca5", "random": "#9a6b00"}
SECONDS = 20.0
"""Of the search for a best subset."""
Cell = dict[str, Any]


def random_sets(n_players: int, size: int) -> Masks:
    """RANDOM masks that keep `size` players."""
    ranks = np.random.default_rng([size, 5]).random((RANDOM, n_players)).argsort(axis=1).argsort(axis=1)
    kept: Masks = ranks < size
    return kept


def best_set(spectrum: Spectrum, size: int) -> Masks:
    """Of a spectrum, (1, n)."""
    best = extremes.subset(spectrum, size, time_limit=SECONDS)
    mask = np.zeros((1, spectrum.n_players), dtype=np.bool_)
    mask[0, list(best.kept)] = True
    return mask


def proposals(spectrum: Spectrum, size: int) -> Masks:
    """Best sets, (c, n), c <= PROPOSED, none twice: of the spectrum, of its terms up to second order, of single
    players' average effects where half are kept, and where `size` are."""
    kinds = [spectrum, up_to(spectrum, 2), up_to(spectrum, 1), single_effects(spectrum, size / spectrum.n_players)]
    return np.unique(np.concatenate([best_set(kind, size) for kind in kinds]), axis=0)


def up_to(spectrum: Spectrum, order: int) -> Spectrum:
    few = spectrum.orders() <= order
    return Spectrum(spectrum.n_players, spectrum.supports[few], spectrum.coefficients[few])


def single_effects(spectrum: Spectrum, share: float) -> Spectrum:
    """First order where each player is kept with that probability: sum over T with i of F(T) (1 - 2 share)^(|T| - 1),
    as the others' chi has mean 1 - 2 share (O'Donnell, Analysis of Boolean Functions, 8.4: the biased derivative)."""
    others = np.float_power(1 - 2 * share, np.maximum(spectrum.orders() - 1, 0))
    effects = np.zeros(spectrum.n_players)
    for players, coefficient in zip(spectrum.players(), spectrum.coefficients * others, strict=True):
        effects[list(players)] += coefficient
    return Spectrum.from_terms(spectrum.n_players, [(i,) for i in range(spectrum.n_players)], effects.tolist())


def asked(model: str, group: str, lists: int, seed: int, masks: Masks) -> NDArray[np.float64]:
    """Readings (m, questions) of masks on questions of their own."""
    game = opened(model, group, questions(lists, seed))
    found = game.measure(masks)
    game.close()
    if found.failures:
        raise SystemExit(next(iter(found.failures.values())))
    return found.readings.astype(np.float64)


def measure(model: str, group: str, game: OpenGame, kept: Measured, spectra: dict[str, Spectrum]) -> list[Cell]:
    """The three cells of a group: the choices, and what they are worth on held-out questions."""
    n = kept.n_players
    sizes = [round(share * n) for share in SHARES]
    masks, proposed = dict[tuple[int, str], Masks](), dict[tuple[int, str], Masks]()
    for size in sizes:
        some = random_sets(n, size)
        best_first = np.argsort(-kept.values(game, some), kind="stable")
        proposed[size, "random"] = some[best_first[:PROPOSED]]
        proposed[size, OURS] = proposals(spectra["stack"], size)
        masks.update(((size, name), best_set(spectrum, size)) for name, spectrum in spectra.items())
    game.close()
    worth = asked(model, group, CHOOSING, CHOOSING_SEED, np.concatenate(list(proposed.values()))).mean(axis=1)
    for key, sets in proposed.items():
        here, worth = worth[: len(sets)], worth[len(sets) :]
        masks[key] = sets[[int(np.argmax(here))]]
    everything = np.concatenate([np.ones((1, n), dtype=np.bool_), *masks.values()])
    found = asked(model, group, HELD_OUT, HELD_OUT_SEED, everything)
    readings = dict(zip(masks, found[1:], strict=True))
    return [
        cell_of(group, share, size, float(found[0].mean()), {name: readings[size, name] for name in CHOICES})
        for share, size in zip(SHARES, sizes, strict=True)
    ]


def cell_of(group: str, share: float, size: int, full: float, readings: dict[str, NDArray[np.float64]]) -> Cell:
    """Means of each choice, and what `chosen` has more than the others with a 95% interval.

    Paired over lists of words, not over questions: two questions of one list are no two samples.
    """
    cell: Cell = {"group": group, "share": share, "kept": size, "full": full, "questions": len(readings[OURS])}
    lists = {name: found.reshape(-1, len(ASKED)).mean(axis=1) for name, found in readings.items()}
    for name, found in lists.items():
        cell[name] = float(found.mean())
        more = lists[OURS] - found
        cell[f"over {name}"] = float(more.mean())
        cell[f"half {name}"] = 1.96 * float(more.std(ddof=1)) / math.sqrt(len(more))
    return cell


def kept_cells(path: Path, digest: str, make: Callable[[], list[Cell]]) -> list[Cell]:
    """From the file, if it is about this game; else made and written."""
    if path.exists():
        stored = json.loads(path.read_text())
        if stored["digest"] == digest:
            cells: list[Cell] = stored["cells"]
            return cells
    cells = make()
    path.write_text(json.dumps({"digest": digest, "cells": cells}))
    return cells


def report(cells: Sequence[Cell]) -> str:
    rows = []
    for cell in cells:
        gains = [f"{cell[f'over {name}']:+.2f} ± {cell[f'half {name}']:.2f}" for name in ("lasso", "random")]
        values = [f"{cell[name]:.2f}" for name in ("full", *CHOICES)]
        rows.append([f"layers {cell['group']}, {cell['share']:.0%} kept", str(cell["kept"]), *values, *gains])
    named = ["stack, chosen", "stack", "lasso", f"best of {RANDOM}"]
    head = ["heads of", "kept", "all kept", *named, "chosen - lasso", "chosen - best of"]
    behind = [c for c in cells if c["over lasso"] + c["half lasso"] < 0]
    ahead = [c for c in cells if c["over lasso"] - c["half lasso"] > 0]
    above = [c for c in cells if c["over random"] > 0]
    said = (
        f"chosen against lasso, beyond the paired 95% interval: behind in {len(behind)} of {len(cells)} cells, ahead "
        f"in {len(ahead)}; above the best of {RANDOM} random sets in {len(above)}"
    )
    return f"{markdown(head, rows)}\n\n{said}; {cells[0]['questions']} held-out questions"


def curve(cells: Sequence[Cell]) -> str:
    """A panel for each group: value on held-out questions along the share of heads kept."""
    groups = list(dict.fromkeys(cell["group"] for cell in cells))
    values = [float(cell[name]) for cell in cells for name in (*CHOICES, "full")]
    low, high = math.floor(min([0.0, *values])), math.ceil(max(values))
    size, top, gap = 180.0, 64.0, 40.0

    def y_of(value: float) -> float:
        return top + size * (high - value) / (high - low)

    body = [plots.text(10, 18, "Logit difference on held-out questions, by the share of a group's heads that is kept")]
    for number, name in enumerate(CHOICES):
        x = 20.0 + 130 * number
        shown = {"random": f"best of {RANDOM} random", OURS: "stack, chosen"}.get(name, name)
        body += [plots.mark(x, 38, INK[name], shown), plots.text(x + 10, 42, shown)]
    for number, group in enumerate(groups):
        left = 40 + number * (size + gap)
        some = [cell for cell in cells if cell["group"] == group]

        def x_of(share: float, left: float = left) -> float:
            return left + size * (share - 0.45) / 0.6

        for tick in range(low, high + 1):
            body.append(plots.line(left, y_of(tick), left + size, y_of(tick)))
            body.append(plots.text(left - 6, y_of(tick) + 4, f"{tick}", 'text-anchor="end" class="small"'))
        for share in (*SHARES, 1.0):
            body.append(plots.text(x_of(share), top + size + 16, f"{share:.0%}", 'text-anchor="middle" class="small"'))
        body.append(plots.text(left + size / 2, top + size + 34, f"layers {group}", 'text-anchor="middle"'))
        for name in reversed(CHOICES):  # ours on top
            points = [(x_of(c["share"]), y_of(c[name]), c[name]) for c in some] + [
                (x_of(1.0), y_of(some[0]["full"]), some[0]["full"])
            ]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
            body.append(f'<polyline points="{path}" fill="none" stroke="{INK[name]}" stroke-width="1.5"/>')
            body += [plots.mark(x, y, INK[name], f"{name}: {value:.2f}") for x, y, value in points]
    return plots.frame(40 + len(groups) * (size + gap), top + size + 46, "Heads kept, and what is left", body)
