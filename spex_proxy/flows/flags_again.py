"""Is what was flagged in a stored answer still there in other answers to the same request? For re-tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from spex_proxy.facts.exchange import Exchange, TextRange
from spex_proxy.facts.retest import Raised
from spex_proxy.flows.acting import Orders
from spex_proxy.plug.kinds import Seen
from spex_proxy.store.flags import Raised as Kept
from spex_proxy.wire.answer import Answer
from spex_proxy.wire.removal import messages_without, without


def flags_again(
    orders: Orders, exchange: Exchange, kept: Sequence[Kept], control: Exchange, removed: Exchange
) -> tuple[Raised, ...]:
    """Each flag of the exchange, looked for in both new answers by the flagger that raised it, as the rules in force
    name it. `control` and `removed`: see `answering`.

    Left out is what can't be looked for again: flags of people, of guardrails and of explanations; those of flaggers
    that the rules name no more, or with other options; and those that go by what a re-test has no like of.
    """
    ours = {(one.flag.name, one.flag.flagger) for one in kept if one.explanation_id is None and one.who is None}
    watches = [watch for watch in orders.book().watches if (watch.name, watch.flagger) in ours]

    def carries(seen: Exchange) -> Callable[[str], bool]:
        names = {flag.name for watch in watches for flag in orders.look(watch, Seen(seen))}
        return names.__contains__

    before, whole, less = carries(_untimed(exchange)), carries(control), carries(removed)
    names = dict.fromkeys(watch.name for watch in watches)
    return tuple(Raised(name, control=whole(name), removed=less(name)) for name in names if before(name))


def answering(exchange: Exchange, answer: Answer, removed: Sequence[TextRange] = ()) -> Exchange:
    """The exchange with another answer, to its prompt without the `removed` stretches."""
    first = answer.choices[0]
    return replace(
        _untimed(exchange),
        messages=messages_without(exchange, removed),
        request=without(exchange, removed),
        choices=answer.choices,
        output_text=first.text,
        finish_reason=first.finish_reason,
        output_ids=None,
        usage=answer.usage,
    )


def _untimed(exchange: Exchange) -> Exchange:
    """How long a re-test takes says nothing: it waits for production. No bound is exceeded by NaN."""
    return replace(exchange, first_byte_s=math.nan, duration_s=math.nan)
