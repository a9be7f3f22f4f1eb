"""One batch of an explanation: masks -> probes -> readings -> block.

What the model was asked before is not asked again: different coalitions can leave the same prompt (two equal sentences,
maskers that blank more than one player), and then share a reading. Repeats that measure noise are asked each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spex_proxy.facts.errors import UpstreamBusy
from spex_proxy.facts.evidence import Block, LogProbs, Masks, Probe, Replicates
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.admission import admitted
from spex_proxy.flows.probes import make_probes, probes_digest
from spex_proxy.flows.table import Parts, Table
from spex_proxy.plug import answers
from spex_proxy.ports.gate.gate import Kept
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


async def answered(
    table: Table,
    recipe: Recipe,
    parts: Parts,
    number: int,
    masks: Masks,
    replicates: Replicates,
    headers: Mapping[str, str],
    known: Known,
) -> Block | Kept:
    """What could be answered of one batch, at least one mask; `known` learns of it. Kept: it is not the time to
    ask. Raises UpstreamBusy."""
    probes = make_probes(table.game, table.tokens, table.salt, parts.plugins, masks)
    keys = [(probe.digest, replicate) for probe, replicate in zip(probes, replicates.tolist(), strict=True)]
    asked = {key: probe for key, probe in zip(keys, probes, strict=True) if key not in known}
    scored = Scored((), 0, 0, 0.0)
    if asked:
        wanted = tuple(asked.values())
        project, scorer = table.game.project, table.scorer
        got = await admitted(scorer, wanted, parts, project, lambda: _score(scorer, wanted, headers))
        if isinstance(got, Kept):
            return got
        scored = got
        for key, reading in zip(asked, scored.readings, strict=True):
            if reading is not None:
                known[key] = reading.logprobs
    rows = [row for row, key in enumerate(keys) if key in known]
    logprobs = np.stack([known[keys[row]] for row in rows])
    return Block(
        number=number,
        masks=masks[rows],
        replicates=replicates[rows],
        values=answers.read(parts.plugins.value(recipe.value), recipe.value, logprobs),
        logprobs=logprobs,
        prompt_tokens=scored.prompt_tokens,
        cached_tokens=scored.cached_tokens,
        seconds=scored.seconds,
        probes_digest=probes_digest([probes[row] for row in rows]),
    )


async def _score(scorer: Scorer, probes: Sequence[Probe], headers: Mapping[str, str]) -> Scored:
    for attempt in range(BUSY_TRIES):
        try:
            return await scorer.score(probes, headers)
        except UpstreamBusy:
            if attempt == BUSY_TRIES - 1:
                raise
            await asyncio.sleep(BUSY_PAUSE_S * 2**attempt)
    raise AssertionError("unreachable: the loop returns or raises")
