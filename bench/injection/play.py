"""Cases that the model obeyed, and each of them as a game: which segments move the probability of what it said?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.injection import cases
from bench.injection.cases import Case
from bench.injection.model import Model, prompt_of
from bench.injection.packing import Ids, Prompt

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(slots=True)
class Play:
    """A case, what the model answered, and the model to ask further."""

    case: Case
    prompt: Prompt
    output: Ids
    answer: str
    model: Model

    @property
    def n_players(self) -> int:
        return len(self.prompt.segments)

    def answer_without(self, removed: Sequence[int]) -> str:
        """What the model answers when these segments are deleted (temperature 0)."""
        mask = np.ones(self.n_players, dtype=np.bool_)
        mask[list(removed)] = False
        return self.model.generate([self.prompt.kept(mask.tolist())], cases.MOST_OUTPUT)[0][1]

    def obeys(self, removed: Sequence[int] = ()) -> bool:
        return cases.is_said(self.case.goal, self.answer_without(removed))


@dataclass(slots=True)
class Purse:
    """What one method asked of one play: it pays for each different mask, whoever else asked the same."""

    play: Play
    asked: dict[bytes, float] = field(default_factory=dict)
    waited: float = 0.0
    """Seconds that the model took."""

    def __call__(self, masks: Masks) -> Values:
        """Values (m,) in nats of masks (m, n)."""
        began = time.perf_counter()
        values = self.play.model.score(self.play.prompt, self.play.output, masks)
        self.waited += time.perf_counter() - began
        self.asked.update({mask.tobytes(): float(value) for mask, value in zip(masks, values, strict=True)})
        return values

    @property
    def paid(self) -> int:
        return len(self.asked)

    def everything(self) -> tuple[Masks, Values]:
        """All that was asked, in the order of asking: masks (m, n), values (m,)."""
        masks = np.stack([np.frombuffer(mask, dtype=np.bool_) for mask in self.asked])
        return masks, np.asarray(list(self.asked.values()))


def played(case: Case, model: Model) -> Play:
    """Ask the model."""
    prompt = prompt_of(model.render(case.messages()), case.segments)
    ((output, answer),) = model.generate([prompt.kept([True] * len(prompt.segments))], cases.MOST_OUTPUT)
    return Play(case, prompt, output, answer, model)


def is_usable(play: Play) -> bool:
    """True where the model obeyed; and of a split payload, where neither part alone made it obey.

    A control counts when the model answered without being told anything.
    """
    if play.case.condition == "none":
        return bool(play.output)
    if not cases.is_said(play.case.goal, play.answer):
        return False
    return play.case.condition != cases.SPLIT or not any(play.obeys([part]) for part in play.case.planted)
