"""A Study: what was measured of a function, what explains it, and all that follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spex_proxy.engine import curves, extremes, interactions, walsh
from spex_proxy.engine.conclude import HIERARCHY_TERMS, Fit
from spex_proxy.engine.extremes import TIME_LIMIT
from spex_proxy.engine.hierarchy import hierarchy
from spex_proxy.engine.indices import rank_interactions
from spex_proxy.engine.rows import rows_of
from spex_proxy.facts.errors import BadEvidence
from spex_proxy.facts.evidence import Evidence, Masks
from spex_proxy.facts.explanation import Fidelity, Verdict
from spex_proxy.facts.recipe import Recipe
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.library import keeping, shapiq
from spex_proxy.library.answers import Curves, Extremes, Smallest
from spex_proxy.library.terms import Indices, Term, table, term_of
from spex_proxy.study import board, words
from spex_proxy.study.drawing import Drawing, draw
from spex_proxy.study.html import board_page

if TYPE_CHECKING:
    from shapiq import InteractionValues


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Study:
    """An explained function. Everything is derived from `spectrum`; `verdict` says whether to believe it."""

    names: tuple[str, ...]
    recipe: Recipe
    evidence: Evidence
    """All that was measured; give it to `explain` to go on from there."""
    fit: Fit
    unit: str = ""
    coarser: Study | None = None
    """The level above, where players were split into smaller ones."""

    @property
    def n_players(self) -> int:
        return len(self.names)

    @property
    def spectrum(self) -> Spectrum:
        return self.fit.spectrum

    @property
    def fidelity(self) -> Fidelity:
        return self.fit.fidelity

    @property
    def verdict(self) -> Verdict:
        return self.fit.verdict

    @property
    def levels(self) -> tuple[Study, ...]:
        """From the coarsest to this one."""
        return (*(self.coarser.levels if self.coarser else ()), self)

    def top(self, k: int = 10) -> tuple[Term, ...]:
        """The `k` strongest terms, players and groups alike: by the share of the value's variance that they explain."""
        return tuple(term_of(each, self.names) for each in rank_interactions(self.spectrum, k))

    def indices(self, name: str = "fsii", order: int | None = None) -> Indices:
        """An index of players and groups: fourier, moebius, bv, bii, sv, sii, k-sii, stii, fbii, fsii or or.

        Up to `order` players, 2 by default (1 where there is but one); sv and bv have order 1, whatever is asked.
        Raises ValueError for an index that nobody knows and an order outside 1..n.
        """
        most = min(2, max(1, self.n_players)) if order is None else order
        return Indices.of(interactions.index(self.spectrum, name.lower(), most), self.names)

    def shapley_values(self) -> NDArray[np.float64]:
        """Shape (n,). Of the spectrum; their sum is its value of the full mask minus that of the empty one."""
        return interactions.shapley_values(self.spectrum)

    def influences(self) -> NDArray[np.float64]:
        """Shape (n,). How much variance of the value is gone once a player is fixed."""
        return interactions.influence(self.spectrum)

    def predict(self, masks: ArrayLike) -> NDArray[np.float64]:
        """What the spectrum says of masks (m, n), True or 1 = kept: shape (m,). Raises ValueError for other shapes."""
        return walsh.predict(self.spectrum, masks_of(masks, self.n_players))

    def extremes(
        self, keep: int | None = None, *, remove: int | None = None, time_limit: float = TIME_LIMIT
    ) -> Extremes:
        """The sets of so many players to keep, or to remove, that make the value highest and lowest.

        Seconds are for each of both. Raises ValueError unless exactly one size is given, between 0 and n.
        """
        if (keep is None) == (remove is None):
            raise ValueError("say how many players to keep, or how many to remove")
        size, is_removed = (keep, False) if keep is not None else (remove or 0, True)
        found = [
            extremes.subset(self.spectrum, size, is_removed=is_removed, highest=highest, time_limit=time_limit)
            for highest in (True, False)
        ]
        return Extremes(found[0], found[1], self.names)

    def necessary(self, threshold: float = 0.0, *, time_limit: float = TIME_LIMIT) -> Smallest:
        """The fewest players whose removal takes the value across the threshold; 0: flips its sign."""
        return Smallest(extremes.necessary(self.spectrum, threshold, time_limit=time_limit), "removing", self.names)

    def sufficient(self, threshold: float = 0.0, *, time_limit: float = TIME_LIMIT) -> Smallest:
        """The fewest players that alone hold the value on its side of the threshold."""
        return Smallest(extremes.sufficient(self.spectrum, threshold, time_limit=time_limit), "keeping", self.names)

    def curves(self, value_function: Callable[[Masks], ArrayLike] | None = None) -> Curves:
        """What becomes of the value when players leave, or come, in the order of their importance.

        Measured with the `value_function` that was explained (2 n + 2 values); without it, as the spectrum predicts.
        """
        order = curves.importance(self.spectrum)

        def along(masks: Masks) -> curves.Curve:
            values = self.predict(masks) if value_function is None else np.asarray(value_function(masks.copy()))
            return curves.Curve(masks, values.astype(np.float64))

        deleted, inserted = along(curves.deletion_masks(order)), along(curves.insertion_masks(order))
        return Curves(tuple(self.names[at] for at in order), deleted, inserted, value_function is not None)

    def removal(self, r: int, value_function: Callable[[Masks], ArrayLike] | None = None) -> float:
        """Removal(r): by which share of v(N) the value moves when the r players that matter most are removed together.

        Measured with the `value_function`; without it, as the spectrum predicts.
        """
        masks = np.stack([np.ones(self.n_players, dtype=np.bool_), curves.removal_mask(self.spectrum, r)])
        values = self.predict(masks) if value_function is None else np.asarray(value_function(masks))
        return curves.removal(float(values[0]), float(values[1]))

    def plot(self, k: int = 12) -> Drawing:
        """A picture (SVG) of the `k` strongest players and of the strongest groups; a notebook shows it."""
        return draw(self._board(), k)

    def to_html(self, path: str | Path, title: str = "Why this value?") -> Path:
        """Write one page that needs nothing else and can be mailed. Returns its path."""
        file = Path(path)
        file.write_text(board_page(self._board(), title), encoding="utf-8")
        return file

    def to_shapiq(self, index: str = "k-SII", order: int | None = None) -> InteractionValues:
        """An index, as `indices` has it, as shapiq's `InteractionValues`, for its plots.

        Needs `pip install "spex-proxy[shapiq]"`.
        """
        if index.lower() not in shapiq.NAMES:
            raise ValueError(f"shapiq has no index {index!r}; there is {', '.join(shapiq.NAMES.values())}")
        found = self.indices(index, order)
        is_estimated = self.fit.how["method"] != "exact"
        return shapiq.values(found, self.n_players, len(self.evidence), self._empty(), is_estimated)

    def save(self, path: str | Path) -> Path:
        """Write the study to a file of NumPy's format (.npz). `Study.load` reads it. Returns its path."""
        levels = [keeping.pack(each.names, each.recipe, each.evidence, each.fit, each.unit) for each in self.levels]
        return keeping.write(Path(path), levels)

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Read what `save` wrote. Raises BadEvidence, naming the file, for anything else."""
        study: Study | None = None
        for names, recipe, evidence, fit, unit in keeping.read(Path(path)):
            study = cls(names, recipe, evidence, fit, unit, study)
        if study is None:
            raise BadEvidence(f"{path} holds no study")
        return study

    def __repr__(self) -> str:
        how, unit = self.fit.how, f", in {self.unit}" if self.unit else ""
        lines = [f"Study of {self.n_players} players: {words.STATE_WORDS[self.verdict]}, {self.fit.verdict_reason}"]
        stopped = f"; {how['stopped']}" if how.get("stopped") else ""
        cost = f"  {self.fidelity.masks:,} masks, {how['method']}{stopped}"
        if self.verdict == "nothing_to_explain":
            return "\n".join([*lines, cost])
        if near := words.near_reading(how["near"], self.unit, "full mask") if how.get("near") else "":
            lines.append(f"  {near}")
        found = hierarchy(self.spectrum, HIERARCHY_TERMS)
        lines += [f"  {words.r2_reading(self.fidelity, how['method'])}", cost]
        lines.append(f"  {words.hierarchy_reading(found, 'players')}  {words.hierarchy_rates(found)}")
        rows = [(term.label, term.effect, term.error) for term in self.top(8)]
        error = ", ± two standard errors" if any(row[2] is not None for row in rows) else ""
        lines.append(f"What keeping it adds on average{unit}{error}; most variance explained first:")
        return "\n".join([*lines, *table(rows)])

    def _repr_html_(self) -> str:
        return self.plot()._repr_html_()

    def _board(self) -> board.Board:
        return board.make_board(self.names, self.fit, self.recipe, rows_of(self.evidence), self.unit)

    def _empty(self) -> float:
        return float(self.predict(np.zeros((1, self.n_players), dtype=np.bool_))[0])


def masks_of(masks: ArrayLike, n_players: int) -> NDArray[np.bool_]:
    """Masks (m, n) as bool. Raises ValueError for other shapes and for numbers other than 0 and 1."""
    given: NDArray[Any] = np.asarray(masks)
    if given.ndim != 2 or given.shape[1] != n_players:
        raise ValueError(f"masks of shape {given.shape} don't fit {n_players} players; give (m, {n_players})")
    as_bool = given.astype(np.bool_)
    if given.dtype != np.bool_ and not np.array_equal(as_bool, given):
        raise ValueError("masks hold True and False, or 1 and 0: kept and removed")
    return as_bool
