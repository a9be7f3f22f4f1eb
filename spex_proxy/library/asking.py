"""Explain any function of masks: ask it, round by round, until the explanation is good enough.

What to ask and when to stop is `engine.decide`, as for a production request; this only carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from spex_proxy.engine.conclude import Fit
from spex_proxy.engine.decide import Ask, ask, decide, measured
from spex_proxy.engine.designs import plan
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence, Masks, Values
from spex_proxy.facts.recipe import Recipe
from spex_proxy.library.study import Study

ValueFunction = Callable[[Masks], ArrayLike]
"""Masks (m, n) bool, True = kept, to m values."""

MASKS_A_PLAYER = 16
"""Of the budget that is taken where none is given."""
LEAST_BUDGET, MOST_BUDGET = 64, 4096
"""Between these; rounds stop early where that is enough."""
MOST_WHOLE = 7
"""Up to so many players all 2^n masks are asked, if the budget allows it: 128 make every index exact."""


class Watcher(Protocol):
    """Whoever wants to know how far it is. Nothing depends on it."""

    def __call__(self, asked: int, r2: float | None) -> None: ...


def explain(
    value_function: ValueFunction,
    players: Sequence[str] | int,
    *,
    budget: int | None = None,
    method: str = "stack",
    design: str = "uniform",
    seed: int = 0,
    target_r2: float = 0.95,
    replicates: int = 3,
    batch_size: int = 256,
    progress: bool = True,
    unit: str = "",
    evidence: Evidence | None = None,
) -> Study:
    """Which players, alone and together, move a function's value.

    `value_function` is called with bool masks (m, n), at most `batch_size` rows, and returns m finite numbers.
    `players`: names, or how many there are. `budget`: most masks to ask, by default all of up to 7 players, else
    16 a player, at least 64 and at most 4,096. `replicates`: how often the full mask is measured, which tells
    noise from effects; 1 for a function without chance. `evidence`: what an earlier study had measured, which is
    not asked again. `unit`: of the values, to be shown. With `progress`, a bar while standard error is a terminal.

    Equal arguments give an equal study, if the function does. Raises BadEvidence for values that are no finite numbers
    or of the wrong shape, and for a budget that no fit can come from; ValueError for a method or a design that nobody
    knows and for other arguments that make no sense. What the function raises passes through.
    """
    names = names_of(players)
    recipe = Recipe(
        segmenter="",
        masker="",
        value="",
        method=method,
        design=design,
        budget=budget_of(budget, len(names), replicates),
        seed=seed,
        target_r2=target_r2,
        replicates=replicates,
    )
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; a batch has at least one mask")
    known = Evidence.empty(len(names)) if evidence is None else evidence
    if known.masks.ndim != 2 or known.n_players != len(names):
        raise BadEvidence(f"the evidence has masks of shape {known.masks.shape}, but there are {len(names)} players")
    with Bar(len(names), recipe.budget, progress) as watcher:
        fit, known = play(value_function, names, recipe, known, batch_size, watcher)
    return Study(names, recipe, known, fit, unit)


def play(
    value_function: ValueFunction,
    names: Sequence[str],
    recipe: Recipe,
    evidence: Evidence,
    batch_size: int,
    watcher: Watcher,
) -> tuple[Fit, Evidence]:
    """Ask until there is a fit; and all that is known then."""
    while isinstance(step := next_step(recipe, evidence), Ask):
        watcher(len(evidence), step.r2)
        for start in range(0, len(step.masks), batch_size):
            rows = slice(start, start + batch_size)
            values = answered(value_function, step.masks[rows], names)
            evidence = Evidence(
                np.concatenate([evidence.masks, step.masks[rows]]),
                np.concatenate([evidence.values, values]),
                np.concatenate([evidence.replicates, step.replicates[rows]]),
            )
            watcher(len(evidence), step.r2)
    watcher(len(evidence), step.fidelity.r2)
    return step, evidence


def next_step(recipe: Recipe, evidence: Evidence) -> Ask | Fit:
    """As `decide` says; but a game that is asked whole is fitted once, when it is."""
    if evidence.n_players <= MOST_WHOLE and recipe.budget >= everything(evidence.n_players, recipe.replicates):
        design = plan(evidence.n_players, recipe)
        known = measured(design, evidence)
        if not known.all():
            return ask(design, known, int(design.rounds[~known].min()), "every combination is asked")
    return decide(recipe, evidence)


def answered(value_function: ValueFunction, masks: Masks, names: Sequence[str]) -> Values:
    """One batch, checked. The function gets masks of its own, to do with as it likes."""
    given = value_function(masks.copy())
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadEvidence(f"the value function returned {type(given).__name__}, not numbers: {error}") from error
    if values.shape != (len(masks),):
        raise BadEvidence(
            f"the value function returned shape {values.shape} for {len(masks)} masks; "
            f"it must return one number for each, shape ({len(masks)},)"
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        removed = [name for name, is_kept in zip(names, masks[wrong[0]], strict=True) if not is_kept]
        shown = ", ".join(removed[:6]) + (f" and {len(removed) - 6} more" if len(removed) > 6 else "")
        raise BadEvidence(
            f"the value function returned {values[wrong[0]]} for the mask that removes {shown or 'nothing'} "
            f"({len(wrong)} such values in this batch); every coalition must have a finite value"
        )
    return values


def names_of(players: Sequence[str] | int) -> tuple[str, ...]:
    """Names, or x0, x1, ... for a count. Raises BadEvidence without players, ValueError for names given twice."""
    if isinstance(players, str):
        raise ValueError(f"players is the text {players!r}; give a list of names, or how many there are")
    if isinstance(players, (int, np.integer)):
        names = tuple(f"x{number}" for number in range(int(players)))
    else:
        names = tuple(str(name) for name in players)
    if not names:
        raise BadEvidence("a game without players has nothing to mask; give at least one")
    return names


def budget_of(budget: int | None, n_players: int, replicates: int) -> int:
    """The default, where none is given; all masks, where that is less or there are few."""
    whole = everything(n_players, replicates)
    if budget is None:
        return whole if n_players <= MOST_WHOLE else min(MOST_BUDGET, max(LEAST_BUDGET, MASKS_A_PLAYER * n_players))
    return min(budget, whole)


def everything(n_players: int, replicates: int) -> int:
    """All masks, and the repeats of the full one."""
    return (1 << n_players) + replicates - 1


class Bar:
    """Players, masks asked, R2 so far, time left; nothing where standard error is no terminal."""

    def __init__(self, n_players: int, budget: int, is_wanted: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn(f"{n_players} players"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("masks  {task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not (is_wanted and (console.is_terminal or console.is_jupyter)),
        )
        self._task: TaskID | None = None
        self._budget = budget

    def __enter__(self) -> Bar:
        self._progress.start()
        self._task = self._progress.add_task("", total=self._budget, said="")
        return self

    def __call__(self, asked: int, r2: float | None) -> None:
        if self._task is not None:
            said = "" if r2 is None else f"R² {r2:.3f} so far"
            self._progress.update(self._task, completed=asked, said=said)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
