"""What the explanations of a window say of all requests: each weighed by its probability to be there.

The weights are those of docs/rules.md: 1 / (capture_probability * explain_probability), and where a rule's cap
said no, times (sampled + capped) / sampled of that rule and day. A window holds at most MOST explanations: what
is larger is refused, not cut, since its newest part is no random sample of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from spex_proxy.engine.estimate import Estimate, count, mean, share
from spex_proxy.facts.errors import TooBroad
from spex_proxy.facts.explanation import Verdict
from spex_proxy.facts.origins import ORIGINS, Origin, bit
from spex_proxy.facts.query import VERDICTS, Query
from spex_proxy.store.browse_explanations import walk
from spex_proxy.store.depending import holding
from spex_proxy.store.fitting import has_term
from spex_proxy.store.tables import exchanges, explanations, interactions
from spex_proxy.wire.terms import phrases

MOST = 10_000
"""Explanations of one window."""
USUAL_DEPTH = 3
MOST_GROUPS = 200

GroupBy = Literal["model", "rule", "day", "hour"]
GROUPINGS: tuple[GroupBy, ...] = get_args(GroupBy)
WEIGHABLE = ("sampled", "header")
"""`explain_why` of exchanges whose probability is known; a header's is 1."""


@dataclass(frozen=True, slots=True)
class Member:
    """One explained exchange of the sample."""

    explanation_id: str
    exchange_id: str
    verdict: Verdict
    r2: float | None
    model: str
    rule: str | None
    received_at: datetime
    probability: float
    """To be captured, chosen, and let through by the cap."""
    origins: int
    """Of the texts in its strongest terms, as bits."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Of all requests, or of a group of them."""

    requests: Estimate
    """How many there were."""
    verdicts: Mapping[Verdict, Estimate]
    r2: Estimate
    """Mean, of those that have one."""
    origins: Mapping[Origin, Estimate]
    """Of those with a reliable explanation: how many depend on a text of this origin."""
    document: Estimate | None
    """The same for the text that was asked for."""


@dataclass(frozen=True, slots=True)
class Population:
    """What a window says."""

    read: int
    """Explanations in the window."""
    left_out: Mapping[str, int]
    """Those that say nothing about all requests, by why."""
    capped_days: int
    """Rules and days in which a cap said no: within these the sample is the first of each minute, not random."""
    whole: Shares
    groups: Mapping[str, Shares]


def population(
    conn: sa.Connection,
    project: str,
    query: Query,
    *,
    depth: int = USUAL_DEPTH,
    document: str | None = None,
    by: GroupBy | None = None,
) -> Population:
    """An answer depends on a text if one of the text's segments is in one of the `depth` strongest terms of its
    explanation. `document`: words that mark such a text, wherever it stands.

    Raises TooBroad for a window without a beginning or with more than 10,000 explanations, ValueError for words
    that are none.
    """
    if document is not None and not phrases(document):
        raise ValueError("write at least one word of the document; signs alone are not indexed")
    rows = _window(conn, project, query)
    newest = {row.exchange_id: row for row in reversed(rows) if row.exchange_id is not None}
    left_out = Counter({"not the newest of its exchange": len(rows) - len(newest)})
    chosen = [row for row in newest.values() if row.explain_why in WEIGHABLE]
    left_out["asked for, not drawn"] = len(newest) - len(chosen)
    factors = _caps(conn, project, [row.received_at for row in chosen])
    origins = _origins(conn, project, query, depth)
    members = [_member(row, factors, origins) for row in chosen]
    reliable = [(one.explanation_id, one.exchange_id) for one in members if one.verdict == "reliable"]
    holds = None if document is None else holding(conn, project, reliable, document, depth)
    groups: dict[str, list[Member]] = {}
    if by is not None:
        for one in members:
            groups.setdefault(_KEYS[by](one), []).append(one)
        if len(groups) > MOST_GROUPS:
            raise TooBroad(f"{len(groups)} groups by {by}; at most {MOST_GROUPS}: take a shorter window")
    return Population(
        read=len(rows),
        left_out={why: n for why, n in left_out.items() if n},
        capped_days=sum(factor > 1.0 for factor in factors.values()),
        whole=_shares(members, holds),
        groups={name: _shares(group, holds) for name, group in sorted(groups.items())},
    )


_KEYS: Mapping[GroupBy, Callable[[Member], str]] = {
    "model": lambda one: one.model,
    "rule": lambda one: one.rule or "(none)",
    "day": lambda one: one.received_at.date().isoformat(),
    "hour": lambda one: f"{one.received_at:%Y-%m-%d %H}:00",
}


def _window(conn: sa.Connection, project: str, query: Query) -> list[Any]:
    if query.since is None:
        raise TooBroad("say where the window begins: give `since`, the time when the explanations were made")
    wanted, reached = walk(conn, project, query, None, MOST + 1)
    columns = [explanations.c[name] for name in ("id", "exchange_id", "verdict", "r2")]
    names = ("model", "rule", "received_at", "capture_probability", "explain_probability", "explain_why")
    of_it = sa.and_(exchanges.c.project == explanations.c.project, exchanges.c.id == explanations.c.exchange_id)
    found = conn.execute(
        sa.select(*columns, *(exchanges.c[name] for name in names))
        .select_from(explanations.join(exchanges, of_it))
        .where(*wanted, *has_term(project, query, explanations))
        .order_by(explanations.c.created_at.desc(), explanations.c.id.desc())
        .limit(MOST + 1)
    ).all()
    if reached is not None or len(found) > MOST:
        raise TooBroad(f"this window has more than {MOST:,} explanations: take a shorter one (since, until)")
    return list(found)


def _member(row: Any, factors: Mapping[tuple[str | None, str], float], origins: Mapping[str, int]) -> Member:
    probability = row.capture_probability * row.explain_probability
    if factors and row.explain_why == "sampled":
        probability /= factors.get((row.rule, row.received_at.date().isoformat()), 1.0)
    kept = (row.verdict, row.r2, row.model, row.rule, row.received_at)
    return Member(row.id, row.exchange_id, *kept, min(1.0, max(probability, 1e-9)), origins.get(row.id, 0))


def _caps(conn: sa.Connection, project: str, moments: Iterable[datetime]) -> dict[tuple[str | None, str], float]:
    """(Rule, day) -> (sampled + capped) / sampled, where a cap said no."""
    moments = sorted(moments)
    if not moments:
        return {}
    first = moments[0].replace(hour=0, minute=0, second=0, microsecond=0)
    last = moments[-1].replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    capped = _per_day(conn, project, "capped", first, last)
    if not capped:
        return {}
    sampled = _per_day(conn, project, "sampled", first, last)
    return {key: 1.0 + n / sampled[key] for key, n in capped.items() if sampled.get(key)}


def _per_day(
    conn: sa.Connection, project: str, why: str, first: datetime, last: datetime
) -> dict[tuple[str | None, str], int]:
    """From `ix_exchanges_chosen` alone."""
    at: Any = exchanges.c.received_at
    utc = sa.func.timezone("UTC", at) if conn.dialect.name == "postgresql" else at
    day = sa.cast(sa.func.date(utc), sa.String)
    literal: sa.ColumnElement[str] = sa.literal_column(
        f"'{why}'"
    )  # a constant, so that the partial index is seen to fit
    query = (
        sa.select(exchanges.c.rule, day.label("day"), sa.func.count().label("n"))
        .where(exchanges.c.project == project, exchanges.c.explain_why == literal, at >= first, at < last)
        .group_by(exchanges.c.rule, day)
    )
    return {(row.rule, row.day): row.n for row in conn.execute(query)}


def _origins(conn: sa.Connection, project: str, query: Query, depth: int) -> dict[str, int]:
    """Explanation of the window -> origins of its strongest terms."""
    made = replace(Query(), since=query.since, until=query.until)
    wanted, _ = walk(conn, project, made, None, MOST)
    of_it = sa.and_(
        interactions.c.project == explanations.c.project, interactions.c.explanation_id == explanations.c.id
    )
    found: dict[str, int] = {}
    query_ = (
        sa.select(explanations.c.id, interactions.c.origins)
        .select_from(explanations.join(interactions, of_it))
        .where(*wanted, interactions.c.rank < depth)
    )
    for key, origins in conn.execute(query_):
        found[key] = found.get(key, 0) | origins
    return found


def _shares(members: list[Member], holds: frozenset[str] | None) -> Shares:
    chances = np.array([one.probability for one in members])
    reliable = [one for one in members if one.verdict == "reliable"]
    of_reliable = np.array([one.probability for one in reliable])
    scored = [(one.r2, one.probability) for one in members if one.r2 is not None]
    r2, of_scored = np.array(scored).reshape(-1, 2).T

    def among(fits: Callable[[Member], bool]) -> Estimate:
        return share(_flags(map(fits, reliable)), of_reliable)

    there = 0
    for one in reliable:
        there |= one.origins
    return Shares(
        requests=count(chances),
        verdicts={v: share(_flags(one.verdict == v for one in members), chances) for v in VERDICTS},
        r2=mean(r2, of_scored),
        origins={o: among(lambda one, o=o: bool(one.origins & bit(o))) for o in ORIGINS if there & bit(o)},  # type: ignore[misc]
        document=None if holds is None else among(lambda one: one.explanation_id in holds),
    )


def _flags(given: Iterable[bool]) -> NDArray[np.bool_]:
    return np.fromiter(given, dtype=np.bool_)
