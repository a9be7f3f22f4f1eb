"""Games with known answers, as a stranger's plugin offers them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.seals import canonical_json, seal
from spex_proxy.plug.kinds import KINDS, Ask, Measured, Player, Rules
from spex_proxy.plug.load import Plugins
from tests.story.scripted_model import ANSWER

NAMES = ("ada", "bob", "cyd", "dan", "eva", "fay")


class Planted:
    """Sums of planted terms. Config: `terms` (list of [players, worth]), `fails` and `raises` (a player each)."""

    asked: ClassVar[list[bytes]] = []
    """Masks that were measured, of all games."""
    closed: ClassVar[int] = 0

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.rules = Rules(
            kind="components",
            subject=config.get("subject", "six friends"),
            players=tuple(Player(name, f"row {number // 3}") for number, name in enumerate(NAMES)),
            items=("first question", "second question"),
            value="mean",
            unit="points",
            digest=seal(canonical_json(config.get("terms", []))),
            batch=config.get("batch", 16),
            cost="an addition",
            notes=("Nothing was trained.",),
        )

    def measure(self, masks: NDArray[np.bool_]) -> Measured:
        type(self).asked.extend(row.tobytes() for row in masks)
        if "raises" in self.config and (~masks[:, self.config["raises"]]).any():
            raise ZeroDivisionError("a secret")
        worth = np.zeros(len(masks))
        for players, weight in self.config.get("terms", []):
            worth += weight * masks[:, players].all(axis=1)
        readings = np.stack([worth - 1, worth + 1], axis=1).astype(np.float32)
        lost = ~masks[:, self.config["fails"]] if "fails" in self.config else np.zeros(len(masks), dtype=bool)
        readings[lost] = np.nan
        return Measured(
            readings, {} if self.config.get("silent") else dict.fromkeys(np.flatnonzero(lost).tolist(), "no")
        )

    def close(self) -> None:
        type(self).closed += 1


class PlantedMaker:
    """Sums of planted terms."""

    name = "planted"
    needs_server = False

    def open(self, config: Mapping[str, Any], ask: Ask | None) -> Planted:
        assert ask is None
        if "subject" in config and not config["subject"]:
            raise ValueError("`subject` is empty: name it")
        return Planted(config)


class Echo(Planted):
    """What the model server says: the log-probability of one answer after the texts of the players that are kept."""

    def __init__(self, config: Mapping[str, Any], ask: Ask) -> None:
        super().__init__(config)
        self._ask = ask

    def measure(self, masks: NDArray[np.bool_]) -> Measured:
        answer = self._ask.text_tokens(ANSWER)
        prompts = [
            self._ask.tokens([{"role": "user", "content": " ".join(np.asarray(NAMES)[mask]) or "nobody"}])
            for mask in masks
        ]
        found = self._ask.score([(prompt, answer) for prompt in prompts])
        sums = np.asarray([row.sum() for row in found.logprobs], dtype=np.float32)
        return Measured(np.stack([sums, sums], axis=1), {}, found.prompt_tokens, found.cached_tokens)


class EchoMaker:
    """What the model server says."""

    name = "echo"
    needs_server = True

    def open(self, config: Mapping[str, Any], ask: Ask | None) -> Echo:
        assert ask is not None
        return Echo(config, ask)


def plugins() -> Plugins:
    """What is installed, and these."""
    ours = (EntryPoint(n, f"tests.story.games:{c}", KINDS["game"][0]) for n, c in MAKERS.items())
    return Plugins([*ours, *(point for group, _ in KINDS.values() for point in entry_points(group=group))])


MAKERS = {"planted": "PlantedMaker", "echo": "EchoMaker"}
