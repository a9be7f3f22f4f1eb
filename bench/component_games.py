"""Generated questions, and games of attention heads measured once and kept in files.

A question shows a list of five words, and then its beginning again up to some word; the answer is the word that
follows in the list, the contrast is another one of it. The words are drawn by a seed: training and held-out questions
have seeds of their own, and no list of one is among the other's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.evidence import Masks
from spex_proxy.plug.kinds import OpenGame
from spex_proxy_components.maker import Components

LIST = (
    "river stone lamp chair apple window dog paper horse bread table flower train music garden bottle finger letter "
    "island mountain winter summer doctor teacher king queen ship road bridge castle forest ocean sugar salt milk "
    "coffee gold silver iron glass"
)
WORDS = tuple(LIST.split())
LENGTH = 5
BEGINNING = "Repeat the list."
ASKED = (0, 2)
"""After which words of a list the next is asked for."""
GROUPS: dict[str, Any] = {"0-5": [0, 6], "12-17": [12, 18], "24-29": [24, 30], "all": "all"}
"""Name -> layers."""


def questions(lists: int, seed: int) -> list[dict[str, str]]:
    """`lists` times len(ASKED) questions. Equal seeds begin alike."""
    random = np.random.default_rng([seed, 40])
    made = []
    for _ in range(lists):
        words = [WORDS[at] for at in random.choice(len(WORDS), LENGTH, replace=False)]
        for at in ASKED:
            others = [word for number, word in enumerate(words) if number not in (at, at + 1)]
            shown = "".join(f" {word}" for word in words)
            prompt = f"{BEGINNING}{shown}{''.join(f' {word}' for word in words[: at + 1])}"
            contrast = others[int(random.integers(len(others)))]
            made.append({"prompt": prompt, "answer": f" {words[at + 1]}", "contrast": f" {contrast}"})
    return made


def opened(model: str, group: str, asked: Sequence[dict[str, str]], **more: Any) -> OpenGame:
    """Heads of a group of layers, against the mean logit difference."""
    config = {"model": model, "layers": GROUPS[group], "questions": list(asked), "value": "logit_difference", **more}
    return Components().open(config, None)


@dataclass(slots=True)
class Measured:
    """A game's values so far, in a file; what is asked again is not measured again."""

    path: Path
    digest: str
    known: dict[bytes, float]
    n_players: int

    @classmethod
    def of(cls, folder: Path, name: str, game: OpenGame) -> Measured:
        """What the file holds of this very game; nothing, if it holds another."""
        folder.mkdir(parents=True, exist_ok=True)
        path, n = folder / f"{name}.npz", len(game.rules.players)
        known: dict[bytes, float] = {}
        if path.exists():
            with np.load(path) as data:
                if str(data["digest"]) == game.rules.digest:
                    known = {
                        row.tobytes(): float(value) for row, value in zip(data["masks"], data["values"], strict=True)
                    }
        return cls(path, game.rules.digest, known, n)

    def values(self, game: OpenGame, masks: Masks) -> NDArray[np.float64]:
        """Of masks (m, n), the mean over the questions, (m,). What is missing is measured, and written as it comes."""
        packed = np.packbits(masks, axis=1)
        missing = [at for at, row in enumerate(packed) if row.tobytes() not in self.known]
        for start in range(0, len(missing), game.rules.batch):
            rows = missing[start : start + game.rules.batch]
            found = game.measure(masks[rows])
            if found.failures:
                raise SystemExit(f"{self.path.stem}: {next(iter(found.failures.values()))}")
            means = found.readings.astype(np.float64).mean(axis=1)
            self.known.update((packed[at].tobytes(), float(value)) for at, value in zip(rows, means, strict=True))
            self.write()
            print(f"\r{self.path.stem}: {start + len(rows)}/{len(missing)} masks", end="", file=sys.stderr, flush=True)
        return np.asarray([self.known[row.tobytes()] for row in packed])

    def write(self) -> None:
        masks = np.stack([np.frombuffer(row, dtype=np.uint8) for row in self.known])
        partial = self.path.with_suffix(".partial.npz")
        np.savez(
            partial,
            masks=masks,
            values=np.asarray(list(self.known.values())),
            digest=self.digest,
            n_players=self.n_players,
        )
        partial.replace(self.path)
