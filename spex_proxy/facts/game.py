"""A game: players, and a value for every coalition of them. Evidence belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spex_proxy.facts.exchange import Segmentation, Target

GameKind = Literal["features", "training", "components"]


MEASURES = {"regenerate": "tokens of the answer that came again"}
"""What the numbers of a scorer's readings are, where they are no log-probabilities."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """How values were asked for: enough to ask again, and to know when not to compare."""

    name: str
    """Backend: `completions`, ..."""
    model: str
    server: str
    """The upstream's own name and version, `vllm 0.32.0`."""

    @property
    def note(self) -> str:
        """What a reader must know of the values; empty where they are log-probabilities of the whole target."""
        if measure := MEASURES.get(self.name):
            return (
                f"the scorer {self.name} asked: values are no log-probabilities, but count {measure} when it was "
                "generated anew at temperature 0 without the segments"
            )
        return ""


def most_scored(scorer: str, most: int) -> int:
    """Most tokens of an answer that a scorer scores, where `most` is what the recipe allows."""
    return 1 if scorer == "first_token" else most


@dataclass(frozen=True, slots=True)
class Game:
    """What fixes every value: who plays, how a coalition becomes a prompt, what is measured.

    `digest` is keyed with the salt of the exchange's content (facts.seals), so
    that it proves equality without revealing text, and dies with the salt.
    """

    id: str
    project: str
    kind: GameKind
    exchange_id: str | None
    parent_game_id: str | None
    players: Segmentation
    masker: str
    value: str
    scorer: Scorer
    target: Target
    digest: str

    @property
    def n_players(self) -> int:
        return len(self.players)
