"""Does SPEX find what was planted? 100 players, 50 terms of 1 to 4, without noise and at 10 dB.

    python -m bench.spex                    the table; the peer's figures as bench/spex_peer.json has them
    python -m bench.spex --peer PYTHON      ask an interpreter with shapiq for the peer's figures anew

Exact: the terms found are the planted ones, none missing and none too many. R2 is against the noiseless function on
2,000 fresh masks. The peer is shapiq's SPEX (package sparse-transform, which spectralexplain calls too) with its own
design at the same budget; it draws its masks itself, and asks at most so many.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import games, record, scores
from bench.table import markdown
from spex_proxy.engine import designs
from spex_proxy.engine.conclude import conclude
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

PEER, OURS = "shapiq SPEX", "spex"
RECORD = Path(__file__).parent / "spex_peer.json"
BUDGETS = (2048, 3072, 4096, 8192)
PEER_BUDGETS = (2048,)
"""A peer takes minutes where ours takes a second."""
LEAST = 1e-6
"""Coefficients below are rounding."""

Cell = dict[str, Any]


def measure(name: str, budget: int, seed: int) -> Cell:
    """Ask what the plan asks, decode, test."""
    game, recipe = games.live(name, seed), Recipe(method="spex", budget=budget, replicates=1, seed=seed)
    plan = designs.plan(game.n, recipe)
    rows = rows_of(Evidence(plan.masks, game.value(plan.masks), plan.replicates))
    begin = time.perf_counter()
    found = conclude(recipe, rows).spectrum
    seconds = time.perf_counter() - begin
    cell: Cell = {"game": name, "method": OURS, "masks": budget, "seed": seed, "asked": len(plan)}
    cell |= {"r2": scores.r_squared(found, game.test()), "exact": is_exact(found, game)}
    return cell | {"recovered": scores.recovered(found, game), "fit_seconds": seconds}


def is_exact(found: Spectrum, game: games.Live) -> bool:
    assert game.truth is not None
    return terms_of(found) == terms_of(game.truth)


def terms_of(spectrum: Spectrum) -> set[tuple[int, ...]]:
    pairs = zip(spectrum.players(), spectrum.coefficients, strict=True)
    return {term for term, value in pairs if term and abs(value) > LEAST}


def ask_peer(python: str, seeds: Sequence[int]) -> None:
    wanted = [
        {"game": name, "method": PEER, "masks": budget, "seed": seed}
        for name in games.PLANTED for budget in PEER_BUDGETS for seed in seeds
    ]  # fmt: skip
    record.record(python, wanted, RECORD)


def report(found: Sequence[Cell]) -> str:
    rows = []
    for name in games.PLANTED:
        for method in (OURS, PEER):
            for budget in BUDGETS:
                some = [c for c in found if (c["game"], c["method"], c["masks"]) == (name, method, budget)]
                if some:
                    rows.append([name, method, f"{budget:,}", *figures(some)])
    head = ["game", "method", "masks", "asked", "exact", "terms of 2 or more found", "R2, median", "R2, worst", "s"]
    return markdown(head, rows)


def figures(some: Sequence[Cell]) -> list[str]:
    """Over seeds."""
    failed = [cell for cell in some if "failed" in cell]
    if failed:
        return [failed[0]["failed"][:40], *["-"] * 5]
    r2 = [float(cell["r2"]) for cell in some]
    exact = f"{sum(c['exact'] for c in some)}/{len(some)}" if "exact" in some[0] else "-"
    share = f"{np.mean([c['recovered'] for c in some]):.0%}" if "recovered" in some[0] else "-"
    asked = f"{np.median([c['asked'] for c in some]):,.0f}"
    seconds = f"{np.median([c['fit_seconds'] for c in some]):.1f}"
    return [asked, exact, share, f"{np.median(r2):.3f}", f"{min(r2):.3f}", seconds]


def main(given: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.spex", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter with shapiq: record its figures")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=list(range(10)))
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    options = parser.parse_args(given)
    if options.peer:
        ask_peer(options.peer, options.seeds[:3])
    found = []
    for name in games.PLANTED:
        for budget in BUDGETS:
            for seed in options.seeds:
                found.append(measure(name, budget, seed))
                print(f"\r{len(found)} fits", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if options.json:
        print("\n".join(json.dumps(cell) for cell in found))
        return
    stored = record.read(RECORD)
    print(report([*found, *stored["cells"]]))
    if stored["about"]:
        print(f"\npeer: {stored['about']['packages']}, Python {stored['about']['python']}, {stored['about']['date']}")


if __name__ == "__main__":
    main(sys.argv[1:])
