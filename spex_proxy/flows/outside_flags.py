"""Somebody outside flags an exchange: a guardrail, or a user who says what they think of an answer."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.explanation import Flag
from spex_proxy.flows.acting import Orders
from spex_proxy.store import exchanges, flags
from spex_proxy.store.columns import utc_now
from spex_proxy.store.flags import Raised
from spex_proxy.store.lookup import find

FEEDBACK = "feedback"


@dataclass(frozen=True, slots=True)
class Sent:
    """The flag as it stands."""

    raised: Raised
    is_new: bool
    """False if it had been sent before: nothing was changed, and no rule acted again."""


def feedback_flag(label: str | None, score: float | None, comment: str | None) -> Flag:
    """What a user said, as a flag: `feedback`, or `feedback:LABEL`, which a rule can ask for."""
    said = comment or (f"score {score:g}" if score is not None else label or FEEDBACK)
    return Flag(FEEDBACK if label is None else f"{FEEDBACK}:{label}", said, score, FEEDBACK)


def flag_from_outside(
    conn: Connection, any_id: str, flag: Flag, *, who: str, key: str | None, project: str, orders: Orders | None
) -> Sent:
    """Keep a flag, and act by the rules; in one transaction. Raises NotFound.

    The same sender's flag of the same name is the same flag, unless an idempotency `key` tells them apart.
    """
    exchange_id = find(conn, any_id, project).exchange_id
    if exchange_id is None:
        raise NotFound(f"{any_id} is an explanation that belongs to no exchange")
    key = None if key is None else f"{flag.flagger} {who} {key}"
    is_new = flags.raise_on_exchange(conn, exchange_id, flag, utc_now(), who=who, key=key, project=project)
    wanted = flags.id_of(exchange_id, flag, who=who, key=key, project=project)
    raised = next(one for one in flags.of_exchange(conn, exchange_id, project=project) if one.id == wanted)
    if is_new and orders is not None:
        try:
            exchange = exchanges.load_exchange(conn, exchange_id, project=project)
        except NotFound:  # erased: the flag is kept, and there is nothing left to act upon
            return Sent(raised, is_new)
        orders.on_flags(conn, exchange, {flag.name})
    return Sent(raised, is_new)
