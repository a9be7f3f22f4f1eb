"""A game: players, and a value for every coalition of them. Evidence belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spex_proxy.facts.exchange import Segmentation, Target

GameKind = Literal["features", "training", "components"]


@dataclass(frozen=True, slots=True)
class Scorer:
    """How values were asked for: enough to ask again, and to know when not to compare."""

    name: str
    """Backend: `completions`, ..."""
    model: str
    server: str
    """The upstream's own name and version, `vllm 0.32.0`."""


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
