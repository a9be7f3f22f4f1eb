"""When the gate is open. Pure: readings in, a reason to wait out.

The order of authority: the hours that the operator allows; what the relays know of production (the load board);
what the model server says of itself. Nobody knowing is a reason to wait, at each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time
from typing import Literal

from spex_proxy.facts.load import Production, Unseen
from spex_proxy.facts.token_budget import Hours

Manner = Literal["alone", "beside", "yields", "elsewhere"]
"""How a scorer's questions bear on production: `alone` ones hold the server's event loop or can't be told to yield,
so they are asked while no request of production is in flight; `beside` ones may run beside streams that have begun;
`yields` ones are held back by the server itself while production is in flight, so that a long batch may wait there;
`elsewhere` ones do not reach the server at all, and no gate is theirs."""

MOST_KV = 0.8
"""Share of the server's cache that live requests may hold: beyond it our blocks would drive production's out."""
AFTER_PREEMPTION_S = 5.0
"""The server has just thrown somebody's work away for want of memory."""


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """What the model server says of itself, ours included."""

    waiting: int
    """Requests that it has not begun."""
    kv_usage: float
    """Share of its cache blocks that live requests hold, in [0, 1]."""
    since_preemption_s: float = float("inf")
    own: int = 0
    """Of its requests, those that it knows to be masked queries, whoever asked them; 0 where it does not know."""
    production: Production | None = None
    """As vLLM's capture middleware counts it; None without it: then the load board knows all there is."""
    in_flight: int = 0
    """Requests of production, as our plugin counts them where it makes room for them; 0 where it does not tell."""


def closed_by_production(production: Production | Unseen, manner: Manner) -> str | None:
    """Why production keeps us out, or None. What is running is aborted for the same reasons."""
    if isinstance(production, Unseen):
        return production.why
    if manner == "yields":
        return None
    if production.awaiting_first:
        return f"{production.awaiting_first} request(s) of production wait for their first token"
    if manner == "alone" and production.in_flight:
        return f"{production.in_flight} request(s) of production are in flight"
    return None


def closed_by_server(server: ServerLoad | Unseen | None, own: int, manner: Manner) -> str | None:
    """Why the server's own numbers keep us out, or None. `server` None: it has no such numbers."""
    if server is None:
        return None
    if isinstance(server, Unseen):
        return server.why
    if why := closed_by_middleware(server, manner):
        return why
    if server.since_preemption_s < AFTER_PREEMPTION_S:
        return "the model server has just preempted a request for want of memory"
    if server.kv_usage > MOST_KV:
        return f"live requests hold {server.kv_usage:.0%} of the model server's cache"
    ours = max(own, server.own)
    if server.waiting > ours and manner != "yields":
        return f"{server.waiting - ours} request(s) of others wait in the model server's queue"
    return None


def closed_by_middleware(server: ServerLoad | Unseen | None, manner: Manner) -> str | None:
    """Why production that passes no relay keeps us out, or None. What is running is aborted for the same reasons."""
    if not isinstance(server, ServerLoad) or server.production is None:
        return None
    return closed_by_production(server.production, manner)


def closed_by_the_clock(hours: Hours | None, moment: time) -> str | None:
    """Why the operator's hours keep us out, or None."""
    if hours is None or moment in hours:
        return None
    return f"explaining may run from {hours.begins:%H:%M} to {hours.ends:%H:%M} UTC only"
