"""Notices of rules to their webhooks: claimed, sent, settled. Ids only, no content."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from sqlalchemy import Engine

from spex_proxy.flows.transactions import write_once
from spex_proxy.ports.counters import Counters
from spex_proxy.store import webhooks

TELL_S = 1.0
"""Between looks for notices that are due."""
_AT_ONCE = 50
"""Sent in one go, one after the other: a slow address delays the others by its timeout, and its tries are bounded."""

Send = Callable[[str, bytes, str], Awaitable[str | None]]
"""(address, body, idempotency key) -> None if it was taken, else why not."""


async def tell(store: Engine, send: Send, counters: Counters) -> int:
    """Send what is due; how many were tried."""
    for tried in range(_AT_ONCE):
        notice = await write_once(store, webhooks.claim_due)
        if notice is None:
            return tried
        failure = await send(notice.url, body_of(notice), notice.id)
        await write_once(store, webhooks.settle, notice, failure)
        is_last = notice.tries >= webhooks.MOST_TRIES
        counters.add("webhooks", "sent" if failure is None else "given_up" if is_last else "failed")
    return _AT_ONCE


def body_of(notice: webhooks.Notice) -> bytes:
    """JSON. What happened to which exchange, by which rule; whoever wants to know more asks the API."""
    said = {
        "id": notice.id,
        "project": notice.project,
        "rule": notice.rule,
        "rules_digest": notice.rules_digest,
        "exchange_id": notice.exchange_id,
        "explanation_id": notice.explanation_id,
        "flags": list(notice.flags),
        "created_at": notice.created_at.isoformat(),
    }
    return json.dumps(said, separators=(",", ":")).encode()
