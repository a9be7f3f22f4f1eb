"""Which explanations depend on a document: a segment of a message that says its words is in a strongest term."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from spex_proxy.facts.errors import VerificationFailed
from spex_proxy.store import codec
from spex_proxy.store.tables import contents, explanation_games, games, interactions
from spex_proxy.wire.terms import phrases, words

_CHUNK = 500
"""Ids of one statement."""


def holding(
    conn: sa.Connection, project: str, made: Sequence[tuple[str, str]], document: str, depth: int
) -> frozenset[str]:
    """Of (explanation, exchange): explanations one of whose `depth` strongest terms has a segment of a message, or a
    part of one, that says these words.

    Ranges are stored, never text: so the words are looked for in the content. What was erased depends on nothing that
    could still be told.
    """
    wanted = [" ".join(("", *phrase, "")) for phrase in phrases(document)]
    found: set[str] = set()
    for start in range(0, len(made), _CHUNK):
        part = made[start : start + _CHUNK]
        texts = _contents(conn, project, [exchange for _, exchange in part], wanted)
        those = [(explanation, exchange) for explanation, exchange in part if exchange in texts]
        terms = _top_segments(conn, project, [explanation for explanation, _ in those], depth)
        for explanation, exchange in those:
            if any(segment in texts[exchange] for segment in terms.get(explanation, ())):
                found.add(explanation)
    return frozenset(found)


def _contents(conn: sa.Connection, project: str, ids: list[str], wanted: list[str]) -> dict[str, frozenset[int]]:
    """Exchange -> numbers of its messages that say all the words, of those that have one."""
    query = sa.select(contents.c.exchange_id, contents.c.blob).where(
        contents.c.project == project, contents.c.exchange_id.in_(ids), contents.c.part == "exchange",
        contents.c.blob.is_not(None),
    )  # fmt: skip
    found, needles = {}, [word for phrase in wanted for word in phrase.split()]
    for row in conn.execute(query):
        try:
            told = codec.message_texts(row.blob, f"content of {row.exchange_id}", needles)
        except VerificationFailed:
            continue
        fits = frozenset(n for n, text in enumerate(told) if _says(text, wanted, needles))
        if fits:
            found[row.exchange_id] = fits
    return found


def _says(text: str, wanted: Sequence[str], needles: Sequence[str]) -> bool:
    """All the phrases, each in spaces; `needles` are their words. Most texts say none of them: of plain letters that
    is seen without taking the text apart."""
    if text.isascii():
        lower = text.lower()
        for needle in needles:
            if needle not in lower:
                return False
    said = " ".join(("", *words(text), ""))
    return all(phrase in said for phrase in wanted)


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
