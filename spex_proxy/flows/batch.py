"""One batch of an explanation: masks -> probes -> readings -> block.

What the model was asked before is not asked again: different coalitions can leave the same prompt (two equal sentences,
maskers that blank more than one player), and then share a reading. Repeats that measure noise are asked each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.errors import UpstreamBusy
from spex_proxy.facts.evidence import Block, LogProbs, Masks, Probe, Replicates, Unanswered
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.admission import admitted
from spex_proxy.flows.probes import make_probes, probes_digest
from spex_proxy.flows.table import Parts, Table
from spex_proxy.plug import answers
from spex_proxy.ports.counters import Counters
from spex_proxy.ports.gate.gate import Kept, Leave
from spex_proxy.ports.scorers import Scored, Scorer

BUSY_TRIES = 4
BUSY_PAUSE_S = 0.5
"""A busy server is asked again after 0.5, 1, 2 s; then the job goes back to the queue, where it waits longer."""

Known = dict[tuple[str, int], LogProbs]
"""(a probe's digest, replicate number) -> its log-probabilities, shape (k,)."""


def known_of(table: Table, parts: Parts, blocks: Sequence[Block]) -> Known:
    """What the stored blocks know. Makes their probes again, since blocks hold masks only."""
    known: Known = {}
    for block in blocks:
        probes = make_probes(table.game, table.tokens, table.salt, parts.plugins, block.masks)
        for probe, replicate, row in zip(probes, block.replicates.tolist(), block.logprobs, strict=True):
            known.setdefault((probe.digest, replicate), row)
    return known


def in_order(masks: Masks, replicates: Replicates) -> NDArray[np.intp]:
    """Row numbers of masks: depth first through the prompt, kept before left out.

    So each mask begins with as many tokens of the one before as any order could give it, which
    the server then has in its prefix cache.
    """
    return np.lexsort([replicates, *(~masks).T[::-1]])


@dataclass
class Memory:
    """What an explanation remembers between its batches."""

    known: Known
    unanswered: Unanswered = Unanswered()  # noqa: RUF009 - frozen


async def answered(
    table: Table,
    recipe: Recipe,
    parts: Parts,
    number: int,
    masks: Masks,
    replicates: Replicates,
    headers: Mapping[str, str],
    memory: Memory,
) -> Block | Kept:
    """What could be answered of one batch, at least one mask; `memory` learns of it. Kept: it is not the time to
    ask. Raises UpstreamBusy."""
    known = memory.known
    probes = make_probes(table.game, table.tokens, table.salt, parts.plugins, masks)
    keys = [(probe.digest, replicate) for probe, replicate in zip(probes, replicates.tolist(), strict=True)]
    asked = {key: probe for key, probe in zip(keys, probes, strict=True) if key not in known}
    question = Asking(table.scorer, tuple(asked.values()), headers)
    if asked:
        try:
            kept = await admitted(table.caller, question.probes, parts, question.ask, question.scored.answered)
        finally:
            memory.unanswered += question.ended()
            count(parts.counters, question.unanswered)
        for key, reading in zip(asked, question.scored.readings, strict=True):
            if reading is not None:
                known[key] = reading.logprobs
        if isinstance(kept, Kept) and not any(question.scored.readings):
            return kept
    rows = [row for row, key in enumerate(keys) if key in known]
    logprobs = np.stack([known[keys[row]] for row in rows])
    return Block(
        number=number,
        masks=masks[rows],
        replicates=replicates[rows],
        values=answers.read(parts.plugins.value(recipe.value), recipe.value, logprobs),
        logprobs=logprobs,
        prompt_tokens=question.scored.prompt_tokens,
        cached_tokens=question.scored.cached_tokens,
        seconds=question.scored.seconds,
        probes_digest=probes_digest([probes[row] for row in rows]),
    )


class Asking:
    """One batch that is put to the scorer, and what has come of it whenever it ends."""

    def __init__(self, scorer: Scorer, probes: Sequence[Probe], headers: Mapping[str, str]) -> None:
        self.probes = probes
        self.scored = Scored.of(probes)
        self.unanswered = Unanswered()
        self._scorer = scorer
        self._headers = headers
        self._is_open = False
        """Something was sent, and it is not known how it ended."""

    async def ask(self, leave: Leave) -> Scored:
        """Again while the server is busy. Raises UpstreamBusy."""
        self.scored.width, self.scored.yields = leave.width, leave.yields
        for attempt in range(BUSY_TRIES):
            self._is_open = True
            try:
                return await self._scorer.score(self.probes, self._headers, self.scored)
            except UpstreamBusy:
                self.ended()
                if attempt == BUSY_TRIES - 1:
                    raise
                await asyncio.sleep(BUSY_PAUSE_S * 2**attempt)
        raise AssertionError("unreachable: the loop returns or raises")

    def ended(self) -> Unanswered:
        """Count what was sent and not answered, and what the server interrupted; of all attempts so far."""
        untold = self.scored.untold if self._is_open else ()
        if lost := [self.probes[number] for number in (*untold, *self.scored.interrupted)]:
            tokens = sum(len(probe.prompt_ids) + len(probe.output_ids) for probe in lost)
            self.unanswered += Unanswered(int(bool(untold)), len(lost), tokens * self._scorer.reads)
        self._is_open = False
        self.scored.interrupted = []
        self.scored.untold = set(range(len(self.probes)))
        return self.unanswered


def count(counters: Counters, unanswered: Unanswered) -> None:
    """For the worker's metrics."""
    for name, number in asdict(unanswered).items():
        if number:
            counters.add(f"unanswered_{name}", by=number)
