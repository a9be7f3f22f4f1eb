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
from spex_proxy.facts.errors import NotFound, TooBroad, VerificationFailed
from spex_proxy.facts.explanation import Verdict
from spex_proxy.facts.origins import ORIGINS, Origin, bit
from spex_proxy.facts.query import VERDICTS, Query
from spex_proxy.store import codec
from spex_proxy.store.browse_explanations import walk
from spex_proxy.store.fitting import has_term
from spex_proxy.store.tables import contents, exchanges, explanation_games, explanations, games, interactions
from spex_proxy.wire.terms import phrases, words

MOST = 10_000
"""Explanations of one window."""
USUAL_DEPTH = 3
MOST_GROUPS = 200
_CHUNK = 500
"""Ids of one statement."""

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
    holds = None if document is None else _holding(conn, project, members, document, depth)
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
    "day": lambda one: f"{one.received_at:%Y-%m-%d}",
    "hour": lambda one: f"{one.received_at:%Y-%m-%d %H}:00",
}


def _window(conn: sa.Connection, project: str, query: Query) -> list[Any]:
    if query.since is None:
        raise TooBroad("say where the window begins: give `since`, the time when the explanations were made")
    wanted, reached = walk(conn, project, query, None, MOST + 1)
    columns = [explanations.c[name] for name in ("id", "exchange_id", "created_at", "verdict", "r2")]
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
    if row.explain_why == "sampled":
        probability /= factors.get((row.rule, f"{row.received_at:%Y-%m-%d}"), 1.0)
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


# ------------------------------------------------------------------------- what depends on a document


def _holding(conn: sa.Connection, project: str, members: list[Member], document: str, depth: int) -> frozenset[str]:
    """Explanations one of whose strongest terms has a segment of the message part that says these words.

    Ranges are stored, never text: so the words are looked for in the content, of reliable ones alone. What was
    erased depends on nothing that could still be told.
    """
    wanted = [" ".join(("", *phrase, "")) for phrase in phrases(document)]
    reliable = [one for one in members if one.verdict == "reliable"]
    found: set[str] = set()
    for start in range(0, len(reliable), _CHUNK):
        part = reliable[start : start + _CHUNK]
        texts = _contents(conn, project, [one.exchange_id for one in part], wanted)
        those = [one for one in part if one.exchange_id in texts]
        terms = _top_segments(conn, project, [one.explanation_id for one in those], depth)
        for one in those:
            if any(segment in texts[one.exchange_id] for segment in terms.get(one.explanation_id, ())):
                found.add(one.explanation_id)
    return frozenset(found)


def _contents(conn: sa.Connection, project: str, ids: list[str], wanted: list[str]) -> dict[str, frozenset[int]]:
    """Exchange -> numbers of its messages that say all the words, of those that have one."""
    query = sa.select(contents.c.exchange_id, contents.c.blob).where(
        contents.c.project == project, contents.c.exchange_id.in_(ids), contents.c.part == "exchange",
        contents.c.blob.is_not(None),
    )  # fmt: skip
    found = {}
    for row in conn.execute(query):
        try:
            messages = codec.decode_content(row.blob, f"content of {row.exchange_id}")["messages"]
        except (VerificationFailed, NotFound):
            continue
        said = [" ".join(("", *words(message.text), "")) for message in messages]
        fits = frozenset(n for n, text in enumerate(said) if all(phrase in text for phrase in wanted))
        if fits:
            found[row.exchange_id] = fits
    return found


def _top_segments(conn: sa.Connection, project: str, ids: list[str], depth: int) -> dict[str, set[int]]:
    """Explanation -> messages that the segments of its strongest terms stand in."""
    first = sa.and_(explanation_games.c.project == games.c.project, explanation_games.c.game_id == games.c.id)
    laid = sa.select(explanation_games.c.explanation_id, games.c.players).select_from(
        explanation_games.join(games, first)
    )
    laid = laid.where(
        explanation_games.c.project == project, explanation_games.c.explanation_id.in_(ids),
        explanation_games.c.position == 0,
    )  # fmt: skip
    segments = {row.explanation_id: row.players["segments"] for row in conn.execute(laid)}
    terms = sa.select(interactions.c.explanation_id, interactions.c.players).where(
        interactions.c.project == project, interactions.c.explanation_id.in_(ids), interactions.c.rank < depth
    )
    found: dict[str, set[int]] = {}
    for row in conn.execute(terms):
        of_it = segments.get(row.explanation_id, ())
        found.setdefault(row.explanation_id, set()).update(of_it[p]["message"] for p in row.players if p < len(of_it))
    return found
