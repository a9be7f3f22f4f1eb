"""Between an explanation and the model server: the gate, and what the operator lets explaining cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from spex_proxy.facts.evidence import Probe
from spex_proxy.facts.token_budget import TokenBudget
from spex_proxy.flows.table import Caller, Parts, Table
from spex_proxy.flows.transactions import read
from spex_proxy.ports.gate.gate import Kept, Leave, Question, Turn
from spex_proxy.ports.scorers import Scored
from spex_proxy.store import spending

REST_S = 2.0
"""Before a spent budget is looked at again."""


def most_of(caller: Caller, tokens: int, parts: Parts) -> int:
    """Most probes of so many tokens in one call: of what production interrupts little should be lost, so it shrinks
    when it does."""
    most = caller.scorer.batch_size
    if parts.gate is None or caller.scorer.manner == "elsewhere":
        return most
    return min(most, parts.gate.at_once(tokens, caller.server))


def at_once(table: Table, parts: Parts) -> int:
    """The same of an explanation's probes."""
    return most_of(table.caller, len(table.tokens.prompt_ids), parts)


async def admitted(
    caller: Caller, probes: Sequence[Probe], parts: Parts, question: Question[Scored], answered: Callable[[], int]
) -> Scored | Kept:
    """Ask when there is room; Kept, after a while at most, if there is none, or if it had to end; `answered` says how
    much had come."""
    if caller.scorer.manner == "elsewhere":
        return await question(Leave())
    if why := await _overspent(caller, parts):
        await asyncio.sleep(REST_S)
        return Kept(why)
    if parts.gate is None:
        return await question(Leave())
    tokens = sum(len(probe.prompt_ids) + len(probe.output_ids) for probe in probes)
    turn = Turn(tokens, len(probes), caller.scorer.manner, caller.server, answered)
    return await parts.gate.ask(turn, question)


async def _overspent(caller: Caller, parts: Parts) -> str | None:
    """Why nothing more may be asked now: everybody's budget, then that of the rule that chose the exchange, as the
    rules in force say it."""
    rule = parts.orders.book().named(caller.rule) if parts.orders and caller.rule else None
    budgets: list[tuple[TokenBudget, str | None]] = [(parts.token_budget, None)]
    if rule is not None:
        budgets.append((rule.budget, rule.name))
    for budget, name in budgets:
        if budget.is_limited:
            spent = await read(parts.store, spending.spent, rule=name, project=caller.project)
            if why := budget.over(spent):
                return why if name is None else f"rule {name}: {why}"
    return None
