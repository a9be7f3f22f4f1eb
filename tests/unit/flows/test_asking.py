"""A game that asks the model server: production ends batches, and nothing answered is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from spex_proxy.facts.evidence import Probe, Reading
from spex_proxy.facts.game import Scorer as ScorerFacts
from spex_proxy.flows.asking import ServerAsk
from spex_proxy.flows.table import Caller, Parts
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.gate.gate import Gate
from spex_proxy.ports.gate.rules import Manner
from spex_proxy.ports.scorers import Scored
from tests.unit.ports.test_gate import IDLE, PREFILLING, World

BATCH = 8
ANSWERED = 3
"""Of a batch, before production comes."""


class Model:
    """Answers probe by probe. Production comes in the middle of each of the first two batches, and goes."""

    facts = ScorerFacts("scripted", "tiny", "vllm 0.32.0")
    batch_size = BATCH
    max_tokens = None
    manner: Manner = "beside"
    reads = 1

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[tuple[int, ...]] = []
        self.widths: list[int | None] = []

    async def score(self, probes: Sequence[Probe], headers: Mapping[str, str], into: Scored | None = None) -> Scored:
        assert into is not None
        self.widths.append(into.width)
        for number, probe in enumerate(probes):
            if number == ANSWERED and len(self.widths) <= 2:
                self.world.production = PREFILLING
                asyncio.get_running_loop().call_later(0.05, setattr, self.world, "production", IDLE)
                await asyncio.sleep(30)
            self.asked.append(probe.prompt_ids)
            into.tell(number, Reading(np.full(1, probe.prompt_ids[0], np.float32)), len(probe.prompt_ids), 0)
        return into


async def test_what_had_come_before_production_came_is_kept() -> None:
    world, counters = World(), Counters()
    model = Model(world)
    nobody: Any = None
    parts = Parts(nobody, nobody, nobody, nobody, nobody, gate=Gate(lambda: world.production), counters=counters)
    ask = ServerAsk(asyncio.get_running_loop(), cast(Any, None), Caller(model, "default"), parts)
    questions = [((number, 7), (1,)) for number in range(20)]
    scores = await asyncio.to_thread(ask.score, questions)
    assert [float(row[0]) for row in scores.logprobs] == [float(number) for number in range(20)]
    assert sorted(model.asked) == [(number, 7) for number in range(20)]  # each once
    assert scores.prompt_tokens == 40
    assert model.widths[0] is None
    assert model.widths[1] == 1  # production was there a moment ago
    assert counters.value("unanswered_masks") == 2 * (BATCH - ANSWERED)
    assert (await asyncio.to_thread(ask.score, [])).logprobs == ()
