"""What a study says of players and groups of players, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.engine.interactions import Index
from spex_proxy.facts.explanation import Interaction
from spex_proxy.study.text import label
from spex_proxy.study.words import digits_for, signed

WIDEST = 60
"""Characters of a group's names in a table of text."""


@dataclass(frozen=True, slots=True, repr=False)
class Term:
    """A player, or a group of players that act together."""

    names: tuple[str, ...]
    players: tuple[int, ...]
    """Columns of the masks, from 0."""
    effect: float
    """Banzhaf interaction index: what keeping it adds on average; for a group, what it adds beyond its parts."""
    fourier: float
    moebius: float
    standard_error: float | None
    """Of the Fourier coefficient."""

    @property
    def error(self) -> float | None:
        """Two standard errors of the effect."""
        return None if self.standard_error is None else 2.0 * self.standard_error * 2**self.order

    @property
    def order(self) -> int:
        return len(self.players)

    @property
    def label(self) -> str:
        return joined(self.names)

    def __repr__(self) -> str:
        error = "" if self.error is None else f" ±{self.error:.3g}"
        return f"<{self.label}: {self.effect:+.4g}{error}>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Indices:
    """An interaction index of all groups of at most `order` players; of those that are not listed it is 0."""

    name: str
    order: int
    names: tuple[str, ...]
    sets: tuple[tuple[int, ...], ...]
    """Groups as columns of the masks, from 0; the empty one first, then by size."""
    numbers: NDArray[np.float64]
    """Shape (sets,)."""

    @classmethod
    def of(cls, found: Index, names: tuple[str, ...]) -> Indices:
        return cls(found.name, found.order, names, tuple(found.players()), found.numbers)

    def __len__(self) -> int:
        return len(self.sets)

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], float]]:
        return zip(self.sets, self.numbers.tolist(), strict=True)

    def __getitem__(self, group: int | str | Sequence[int | str]) -> float:
        """The index of a player or a group, by columns or by names. Raises KeyError for players that there are not."""
        chosen = [group] if isinstance(group, (int, str, np.integer)) else group
        players = tuple(sorted({self._player(player) for player in chosen}))
        if len(players) > self.order:
            raise KeyError(f"{self.name} was computed up to order {self.order}, not {len(players)}")
        where = {each: number for number, each in enumerate(self.sets)}.get(players)
        return 0.0 if where is None else float(self.numbers[where])

    def values(self) -> NDArray[np.float64]:
        """Shape (n,). Those of single players."""
        out = np.zeros(len(self.names))
        for players, number in self:
            if len(players) == 1:
                out[players[0]] = number
        return out

    def top(self, k: int = 10, *, order: int | None = None) -> list[tuple[tuple[str, ...], float]]:
        """The `k` largest in absolute value, the empty set left out; of one order, or of all."""
        wanted = [(s, v) for s, v in self if s and (order is None or len(s) == order)]
        wanted.sort(key=lambda entry: (-abs(entry[1]), entry[0]))
        return [(tuple(self.names[player] for player in players), value) for players, value in wanted[:k]]

    def __repr__(self) -> str:
        head = f"{self.name}, order {self.order}: {len(self) - 1} groups"
        return "\n".join([head, *table([(joined(names), value, None) for names, value in self.top()])])

    def _player(self, player: int | str) -> int:
        if isinstance(player, str):
            found = [number for number, name in enumerate(self.names) if name == player]
            if len(found) != 1:
                raise KeyError(f"{len(found)} players are named {player!r}")
            return found[0]
        if not 0 <= player < len(self.names):
            raise KeyError(f"player {player} is outside 0..{len(self.names) - 1}")
        return int(player)


def term_of(interaction: Interaction, names: Sequence[str]) -> Term:
    return Term(
        names=tuple(names[player] for player in interaction.players),
        players=interaction.players,
        effect=interaction.banzhaf,
        fourier=interaction.fourier,
        moebius=interaction.moebius,
        standard_error=interaction.standard_error,
    )


def table(rows: Sequence[tuple[str, float, float | None]]) -> list[str]:
    """Lines of text: a number, what it may be off by, a bar, a name."""
    largest = max((abs(value) for _, value, _ in rows), default=0.0) or 1.0
    digits = digits_for(largest)
    shown = [signed(value, digits) for _, value, _ in rows]
    errors = ["" if error is None else f"±{error:.{digits}f}" for _, _, error in rows]
    width, more = (max((len(text) for text in texts), default=0) for texts in (shown, errors))
    return [
        f"  {text:>{width}} {about:<{more}} {'█' * max(1, round(12 * abs(value) / largest)):<12}  {name}"
        for text, about, (name, value, _) in zip(shown, errors, rows, strict=True)
    ]


def joined(names: Sequence[str]) -> str:
    """Names of a group on one line, each cut to its share of it."""
    return " × ".join(label(name, max(8, WIDEST // max(1, len(names)))) for name in names)
