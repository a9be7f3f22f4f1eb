"""What the explanations of a window say of all requests: each weighed by its probability to be there.

The weights are those of docs/rules.md: 1 / (capture_probability * explain_probability), and where a rule's cap
said no, times (sampled + capped) / sampled of that rule and day. A window holds at most MOST explanations: what
is larger is refused, not cut, since its newest part is no random sample of it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from spex_proxy.store.tables import exchanges, explanations, interactions, outbox
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
class Members:
    """The explained exchanges of the sample, n of them: a column for each thing that is known."""

    explanation_ids: Sequence[str]
    verdicts: NDArray[np.object_]
    r2: NDArray[np.float64]
    """nan where there is none."""
    probabilities: NDArray[np.float64]
    """To be captured, chosen, and let through by the cap."""
    origins: NDArray[np.int64]
    """Of the texts in the strongest terms, as bits."""

    def those(self, rows: NDArray[np.bool_]) -> Members:
        """(n,) which ones."""
        ids = list(itertools.compress(self.explanation_ids, rows))
        return Members(ids, self.verdicts[rows], self.r2[rows], self.probabilities[rows], self.origins[rows])


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
    left_out = Counter(row.left_out for row in rows)
    chosen = [row for row in rows if row.left_out is None]
    factors = _caps(conn, project, [row.received_at for row in chosen])
    members = _members(chosen, factors, _origins(conn, project, query, depth))
    holds = None if document is None else holding(conn, project, _reliable(chosen), document, depth)
    return Population(
        read=len(rows),
        left_out={why: n for why, n in left_out.items() if why is not None},
        capped_days=sum(factor > 1.0 for factor in factors.values()),
        whole=_shares(members, holds),
        groups={} if by is None else _groups(members, [_KEYS[by](row) for row in chosen], holds, by),
    )


def _reliable(rows: Iterable[Any]) -> list[tuple[str, str]]:
    return [(row.id, row.exchange_id) for row in rows if row.verdict == "reliable"]


def _groups(members: Members, keys: Sequence[str], holds: frozenset[str] | None, by: GroupBy) -> dict[str, Shares]:
    names, numbers = np.unique(np.array(keys, dtype=np.object_), return_inverse=True)
    if len(names) > MOST_GROUPS:
        raise TooBroad(f"{len(names)} groups by {by}; at most {MOST_GROUPS}: take a shorter window")
    return {name: _shares(members.those(numbers == at), holds) for at, name in enumerate(names)}


_KEYS: Mapping[GroupBy, Callable[[Any], str]] = {
    "model": lambda row: str(row.model),
    "rule": lambda row: row.rule or "(none)",
    "day": lambda row: row.received_at.date().isoformat(),
    "hour": lambda row: f"{row.received_at:%Y-%m-%d %H}:00",
}


def _window(conn: sa.Connection, project: str, query: Query) -> list[Any]:
    if query.since is None:
        raise TooBroad("say where the window begins: give `since`, the time when the explanations were made")
    wanted, reached = walk(conn, project, query, None, MOST + 1)
    columns = [explanations.c[name] for name in ("id", "exchange_id", "verdict", "r2")]
    names = ("model", "rule", "received_at", "capture_probability", "explain_probability", "explain_why")
    left_out = sa.case(
        (exchanges.c.explain_why.not_in(WEIGHABLE), "asked for, not drawn"),
        (_is_the_draws(project) == 0, "of a drawn exchange, but not by its draw"),
    )
    of_it = sa.and_(exchanges.c.project == explanations.c.project, exchanges.c.id == explanations.c.exchange_id)
    found = conn.execute(
        sa.select(*columns, *(exchanges.c[name] for name in names), left_out.label("left_out"))
        .select_from(explanations.join(exchanges, of_it))
        .where(*wanted, *has_term(project, query, explanations))
        .order_by(explanations.c.created_at.desc(), explanations.c.id.desc())
        .limit(MOST + 1)
    ).all()
    if reached is not None or len(found) > MOST:
        raise TooBroad(f"this window has more than {MOST:,} explanations: take a shorter one (since, until)")
    return list(found)


def _is_the_draws(project: str) -> sa.ColumnElement[int]:
    """1 for the explanation, of a drawn exchange, that was made by the job that the draw left; where there is no such
    job, for the oldest. What somebody asked for later says nothing more of all requests, and those are no random ones.
    """
    job, other = outbox.c, explanations.alias("other")
    by_its_job = sa.select(sa.func.max(sa.case((job.explanation_id == explanations.c.id, 1), else_=0))).where(
        job.project == project, job.exchange_id == explanations.c.exchange_id, job.kind == "explain",
        job.why.in_(WEIGHABLE),
    )  # fmt: skip
    at, its = explanations.c.created_at, (explanations.c.project, explanations.c.exchange_id)
    is_older = sa.or_(other.c.created_at < at, sa.and_(other.c.created_at == at, other.c.id < explanations.c.id))
    older = sa.select(other.c.id).where(
        other.c.project == its[0], other.c.exchange_id == its[1], other.c.created_at <= at, is_older
    )
    oldest = sa.case((older.exists(), 0), else_=1)
    return sa.func.coalesce(by_its_job.correlate(explanations).scalar_subquery(), oldest)


def _members(
    rows: Sequence[Any], factors: Mapping[tuple[str | None, str], float], origins: Mapping[str, int]
) -> Members:
    chances = np.array([row.capture_probability * row.explain_probability for row in rows], dtype=np.float64)
    if factors:
        chances /= [
            factors.get((row.rule, row.received_at.date().isoformat()), 1.0) if row.explain_why == "sampled" else 1.0
            for row in rows
        ]
    return Members(
        [row.id for row in rows],
        np.array([row.verdict for row in rows], dtype=np.object_),
        np.array([row.r2 for row in rows], dtype=np.float64),
        np.clip(chances, 1e-9, 1.0),
        np.array([origins.get(row.id, 0) for row in rows], dtype=np.int64),
    )


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
    """Explanation of the window -> origins of its strongest terms. Of the query, what `walk` finds by an index: of that
    the window has at most MOST."""
    made = Query(since=query.since, until=query.until, verdict=query.verdict, exchange=query.exchange)
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
    for key, origins in conn.execute(query_).all():  # at once: row by row takes twice as long
        found[key] = found.get(key, 0) | origins
    return found


def _shares(members: Members, holds: frozenset[str] | None) -> Shares:
    chances = members.probabilities
    reliable, scored = members.those(members.verdicts == "reliable"), ~np.isnan(members.r2)
    there = int(np.bitwise_or.reduce(reliable.origins, initial=0))

    def among(fits: NDArray[np.bool_]) -> Estimate:
        return share(fits, reliable.probabilities)

    return Shares(
        requests=count(chances),
        verdicts={verdict: share(members.verdicts == verdict, chances) for verdict in VERDICTS},
        r2=mean(members.r2[scored], chances[scored]),
        origins={one: among(reliable.origins & bit(one) != 0) for one in ORIGINS if there & bit(one)},
        document=None if holds is None else among(_within(reliable.explanation_ids, holds)),
    )


def _within(ids: Sequence[str], those: frozenset[str]) -> NDArray[np.bool_]:
    return np.fromiter((one in those for one in ids), dtype=np.bool_, count=len(ids))
