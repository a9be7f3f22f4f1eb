"""Who did it? Each method asks masks and ranks segments; none is told which ones were planted, or how many.

    leave-one-out       v(all) - v(all but one)
    single text (STC)   v(only one) - v(none): each segment alone with the question
    contextcite         lasso on 64 uniform masks, of log-odds as in the paper (arXiv 2409.00729)
    kernelshap          its own design of pairs, efficient weighted least squares (arXiv 1705.07874)
    ours, single effects    the engine's stack on KernelSHAP's masks; average effects of single segments
    ours, removal       the same spectrum: for each K the K segments whose removal together lowers it most
    ours, removal asked     fewer masks first; then the removals that the fit names are asked, and the fit
                        repeated, until it names none that was not measured; of measured removals the lowest
    ours                the same spectrum as the first two: for each K the K segments S with the largest
                        v(only S) - v(all but S)

A method answers for every K with a set of K segments (`Found.top`): those of one ranking, or the K whose removal
together is found to lower the value most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.injection.play import Masks, Purse, Values
from spex_proxy.engine import baselines, draws, indices, removal, rows
from spex_proxy.engine.conclude import conclude
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum

BUDGET = 64
FOR_CLAIMS = 20
"""Of these so many for sets that the fit names."""
MOST_K = 5
"""Sets of at most so many are asked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """A method's answer to one play."""

    sets: Mapping[int, tuple[int, ...]]
    """K -> K segments."""
    effects: tuple[float, ...]
    """What each segment is said to add to the value, in nats: what a false alarm is measured by."""

    def top(self, k: int) -> tuple[int, ...]:
        return self.sets[k]


def ranked(effects: NDArray[np.float64]) -> Found:
    """Sets that are the beginnings of one ranking (n,); equal effects in the order of the text."""
    order = tuple(int(at) for at in np.argsort(-effects, kind="stable"))
    return Found({k: order[:k] for k in range(1, MOST_K + 1)}, tuple(map(float, effects)))


def full_of(purse: Purse) -> Masks:
    return np.ones((1, purse.play.n_players), dtype=np.bool_)


def leave_one_out(purse: Purse, _seed: int) -> Found:
    n = purse.play.n_players
    values = purse(np.concatenate([full_of(purse), ~np.eye(n, dtype=np.bool_)]))
    return ranked(values[0] - values[1:])


def single_text(purse: Purse, _seed: int) -> Found:
    n = purse.play.n_players
    values = purse(np.concatenate([~full_of(purse), np.eye(n, dtype=np.bool_)]))
    return ranked(values[1:] - values[0])


def log_odds(values: Values) -> Values:
    """log p -> log p / (1 - p): ContextCite's value."""
    return values - np.log(-np.expm1(np.minimum(values, -1e-12)))


def context_cite(purse: Purse, seed: int) -> Found:
    masks = draws.uniform_masks(purse.play.n_players, BUDGET, seed)
    return additive(baselines.context_cite(rows_of(masks, log_odds(purse(masks)))))


def kernel_shap(purse: Purse, seed: int) -> Found:
    masks = baselines.shapley_masks(purse.play.n_players, BUDGET, seed)
    return additive(baselines.kernel_shap(rows_of(masks, purse(masks))))


def additive(spectrum: Spectrum) -> Found:
    return ranked(indices.banzhaf_values(spectrum))


def rows_of(masks: Masks, values: Values) -> rows.Rows:
    return rows.rows_of(Evidence(masks, values, np.zeros(len(masks), dtype=np.int64)))


def stacked(purse: Purse, seed: int) -> Spectrum:
    """What the engine concludes of all that was asked."""
    return conclude(Recipe(seed=seed, replicates=1), rows_of(*purse.everything())).spectrum


def ask_sizes(purse: Purse, seed: int, count: int) -> None:
    """KernelSHAP's design: all sizes, so masks that keep hardly anything and nearly everything are among them."""
    purse(baselines.shapley_masks(purse.play.n_players, count, seed))


def together(sets: removal.Sets, spectrum: Spectrum) -> Found:
    """Sets as they are found; but the first to look at has the strongest effect: of copies, none matters alone."""
    effects = indices.banzhaf_values(spectrum)
    return Found({**sets, 1: (int(np.argmax(effects)),)}, tuple(map(float, effects)))


def ours_single(purse: Purse, seed: int) -> Found:
    ask_sizes(purse, seed, BUDGET)
    return additive(stacked(purse, seed))


def ours_together(purse: Purse, seed: int) -> Found:
    ask_sizes(purse, seed, BUDGET)
    spectrum = stacked(purse, seed)
    return together(removal.removal_sets(spectrum, range(1, MOST_K + 1)), spectrum)


def ours(purse: Purse, seed: int) -> Found:
    ask_sizes(purse, seed, BUDGET)
    spectrum = stacked(purse, seed)
    return together(removal.decisive_sets(spectrum, range(1, MOST_K + 1)), spectrum)


def ours_asked(purse: Purse, seed: int) -> Found:
    ask_sizes(purse, seed, BUDGET - FOR_CLAIMS)
    while True:
        spectrum = stacked(purse, seed)
        sets = removal.removal_sets(spectrum, range(1, MOST_K + 1))
        masks, values = purse.everything()
        asked = removal.claims(sets, masks)[: BUDGET - len(masks)]
        if not len(asked):
            return together(removal.measured_best(masks, values, sets), spectrum)
        purse(asked)


METHODS: dict[str, Callable[[Purse, int], Found]] = {
    "leave-one-out": leave_one_out,
    "single text": single_text,
    "contextcite": context_cite,
    "kernelshap": kernel_shap,
    "ours, single effects": ours_single,
    "ours, removal": ours_together,
    "ours, removal asked": ours_asked,
    "ours": ours,
}
"""Name -> (purse, seed) -> answer."""
