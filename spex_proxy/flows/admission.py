"""Between an explanation and the model server: the gate, and what the operator lets explaining cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from spex_proxy.facts.evidence import Probe
from spex_proxy.flows.table import Parts, Table
from spex_proxy.flows.transactions import read
from spex_proxy.ports.gate.gate import Kept, Turn
from spex_proxy.ports.scorers import Scored, Scorer
from spex_proxy.store import spending

REST_S = 2.0
"""Before a spent budget is looked at again."""


def at_once(table: Table, parts: Parts) -> int:
    """Most probes in one call: of what production interrupts little should be lost, so it shrinks when it does."""
    most = table.scorer.batch_size
    if parts.gate is None or table.scorer.manner == "elsewhere":
        return most
    return min(most, parts.gate.at_once(len(table.tokens.prompt_ids)))


async def admitted(
    scorer: Scorer, probes: Sequence[Probe], parts: Parts, project: str, question: Callable[[], Awaitable[Scored]]
) -> Scored | Kept:
    """Ask when there is room; Kept, after a while at most, if there is none."""
    if scorer.manner == "elsewhere":
        return await question()
    if parts.token_budget.is_limited:
        spent = await read(parts.store, spending.spent, project=project)
        if why := parts.token_budget.over(spent):
            await asyncio.sleep(REST_S)
            return Kept(why)
    if parts.gate is None:
        return await question()
    tokens = sum(len(probe.prompt_ids) + len(probe.output_ids) for probe in probes)
    return await parts.gate.ask(Turn(tokens, len(probes), scorer.manner), question)
