"""The game `training`: examples, or groups of them, are left out, and a model is trained anew for each coalition."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from spex_proxy.engine.draws import raw_words
from spex_proxy.facts.evidence import Masks
from spex_proxy.facts.seals import canonical_json, seal
from spex_proxy.plug.kinds import Ask, Measured, OpenGame, Player, Rules
from spex_proxy_training import estimators, examples, modules, readings
from spex_proxy_training.examples import Drawn, Examples
from spex_proxy_training.readings import Reading
from spex_proxy_training.section import Section
from spex_proxy_training.trainer import Trainer, Untrained

KNOWN = ("data", "players", "test", "groups", "trainer", "reading", "seed", "batch")
VERSION = "1"
"""Of this code's meaning: it changes when equal configurations give other values."""
SHOWN = 3
"""Examples of a group that its text quotes."""


class Training:
    """Games whose players are training examples."""

    name = "training"
    needs_server = False

    def open(self, config: Mapping[str, Any], ask: Ask | None) -> OpenGame:  # noqa: ARG002 - no server is needed
        """Load data and trainer. Raises as GameMaker.open."""
        top = Section.of(config, "", KNOWN)
        data = Section.of(top.need("data"), "data", examples.KNOWN)
        seed = top.whole("seed", 0)
        drawn = examples.load(data, top.whole("players", least=2), top.whole("test", 1, 1), seed)
        trainer = trainer_of(Section.of(top.need("trainer"), "trainer", (*estimators.KNOWN, "torch")), seed)
        reading = reading_of(top, trainer)
        members = members_of(top, drawn.train, seed)
        return Retraining(rules_of(top, drawn, members, trainer, reading, seed), drawn, members, trainer, reading)


def trainer_of(section: Section, seed: int) -> Trainer:
    """One of the two kinds. Raises ValueError for none or both of them."""
    if section.has("torch") == section.has("estimator"):
        raise ValueError(f"{section.where} must name an estimator, or torch and a module, and not both")
    if section.has("torch"):
        return modules.from_config(Section.of(section.entries, section.where, modules.KNOWN), seed)
    return estimators.from_config(Section.of(section.entries, section.where, estimators.KNOWN), seed)


def reading_of(top: Section, trainer: Trainer) -> Reading:
    """Raises ValueError where log-probabilities are wanted of a trainer that has none."""
    if top.choice("reading", ("margin", "log_probability"), "margin") == "margin":
        return "margin"
    if trainer.scale != "log_probability":
        raise ValueError(f"reading is log_probability, but {trainer.name} gives decision values only; read the margin")
    return "log_probability"


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Who is left out together."""

    players: tuple[Player, ...]
    owner: NDArray[np.int64]
    """Shape (r,). The player of each training example."""


def members_of(top: Section, train: Examples, seed: int) -> Members:
    """Every example for itself; a number of groups of nearly equal sizes, drawn; or one for each group of the data."""
    wanted = top.entries.get("groups")
    if wanted is None:
        players = tuple(Player(text, group) for text, group in zip(train.texts, train.groups, strict=True))
        return Members(players, np.arange(len(train)))
    if wanted == "group":
        names = sorted(set(train.groups))
        owner = np.asarray([names.index(group) for group in train.groups], dtype=np.int64)
    elif isinstance(wanted, int) and not isinstance(wanted, bool) and 2 <= wanted <= len(train):
        order = np.argsort(raw_words(seed, examples.GROUPS, len(train)), kind="stable")
        owner = np.empty(len(train), dtype=np.int64)
        owner[order] = np.arange(len(train)) * wanted // len(train)
        names = [f"group {number + 1}" for number in range(wanted)]
    else:
        raise ValueError(
            f"groups must be a number between 2 and {len(train)}, the number of players, or `group`: one player for "
            "each value of the data's group column, or of the class where there is none"
        )
    if len(names) < 2:
        raise ValueError("all training examples are of one group: there is nothing to leave out")
    some = [train.some(np.flatnonzero(owner == at)) for at in range(len(names))]
    return Members(tuple(grouped(name, part) for name, part in zip(names, some, strict=True)), owner)


def grouped(name: str, some: Examples) -> Player:
    quoted = "; ".join(some.texts[:SHOWN])
    more = f"; and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
    return Player(f"{len(some)} examples: {quoted}{more}", name)


def rules_of(top: Section, drawn: Drawn, members: Members, trainer: Trainer, reading: Reading, seed: int) -> Rules:
    in_nats = trainer.scale == "log_probability"
    classes, kept = len(drawn.train.classes), len(drawn.train)
    what = "log-probability of the right class" if reading == "log_probability" else "margin of the right class"
    frequencies = (
        "A class without an example has the share that one example of each class added to the kept ones would give it."
        if in_nats
        else "A class without an example scores 1 under the lowest of the others."
    )
    return Rules(
        kind="training",
        subject=drawn.subject,
        players=members.players,
        items=tuple(" ".join(f"{what}: {text}".split()) for text in drawn.test.texts),
        value="mean",
        unit="nats" if in_nats else "decision value",
        digest=digest_of(drawn, members, trainer, reading, seed),
        batch=top.whole("batch", 64, 1),
        cost=f"one training of {trainer.name} on half of {kept} examples",
        notes=(
            f"{trainer.name} is trained anew for every coalition, always from the same seed.",
            f"There are {classes} classes. {frequencies}",
        ),
    )


def digest_of(drawn: Drawn, members: Members, trainer: Trainer, reading: Reading, seed: int) -> str:
    """Everything that fixes the values: data by their bytes, who belongs together, trainer, reading, seed, versions."""
    parts = [members.owner.astype("<i8").tobytes()]
    for some in (drawn.train, drawn.test):
        parts += [
            np.asarray(some.features.shape, dtype="<i8").tobytes(),
            some.features.astype("<f8").tobytes(),
            some.labels.astype("<i8").tobytes(),
        ]
    about = {
        "code": VERSION, "classes": list(drawn.train.classes), "trainer": dict(trainer.identity), "reading": reading,
        "seed": seed, "least": readings.LEAST, "numpy": np.__version__, "scipy": importlib.metadata.version("scipy"),
    }  # fmt: skip
    return seal(b"spex-proxy training 1", canonical_json(about), *parts)


class Retraining:
    """An open game: every row of `measure` is one training."""

    def __init__(self, rules: Rules, drawn: Drawn, members: Members, trainer: Trainer, reading: Reading) -> None:
        self.rules = rules
        self._drawn = drawn
        self._owner = members.owner
        self._trainer = trainer
        self._reading: Reading = reading

    def measure(self, masks: Masks) -> Measured:
        """As OpenGame.measure. A coalition whose training raises or does not give finite numbers is a failure."""
        if masks.ndim != 2 or masks.shape[1] != len(self.rules.players) or masks.dtype != np.bool_:
            raise ValueError(f"masks must be bool (m, {len(self.rules.players)}), not {masks.dtype} {masks.shape}")
        found = np.full((len(masks), len(self.rules.items)), np.nan, dtype=np.float32)
        failures: dict[int, str] = {}
        with threadpool_limits(limits=1, user_api="blas"):
            for row, mask in enumerate(masks):
                try:
                    found[row] = self.trained(mask)
                except Untrained as reason:
                    failures[row] = str(reason)
                except Exception as error:  # noqa: BLE001 - whatever a trainer raises is this coalition's, and is told
                    # its own words may quote the data
                    failures[row] = f"training {self._trainer.name} raised {type(error).__name__}"
        return Measured(found, failures)

    def trained(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The readings (k,) after training on what one mask (n,) keeps. Raises Untrained."""
        train, test = self._drawn.train, self._drawn.test
        kept = np.flatnonzero(mask[self._owner])
        present, labels = np.unique(train.labels[kept], return_inverse=True)
        if len(present) < 2:
            scores = np.zeros((len(test), len(present)))
        else:
            scores = self._trainer.scores(train.features[kept], labels.astype(np.int64), test.features)
            if scores.shape != (len(test), len(present)):
                raise Untrained(f"{self._trainer.name} gave scores {scores.shape} for {len(present)} classes")
            if np.isnan(scores).any() or np.isposinf(scores).any():
                raise Untrained(f"{self._trainer.name} diverged: its scores are not finite")
        whole = readings.of_all_classes(scores, present, len(kept), len(train.classes), self._trainer.scale)
        read = readings.read(whole, test.labels, self._reading)
        if not np.isfinite(read).all() or (np.abs(read) > np.finfo(np.float32).max).any():
            raise Untrained(f"{self._trainer.name} diverged: its scores are not finite")
        return read

    def close(self) -> None:
        """Nothing is held."""
