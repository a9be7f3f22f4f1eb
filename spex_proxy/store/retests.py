"""Re-tests: what was taken out, what the model said then, and what became of the job."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.retest import Answers, Outcome, Raised, Retest, Spoken
from spex_proxy.store import codec
from spex_proxy.store import exchanges as captured
from spex_proxy.store.columns import DEFAULT_PROJECT
from spex_proxy.store.outbox import JobState
from spex_proxy.store.rows import insert_new
from spex_proxy.store.tables import outbox, retest_texts, retests

_FIELDS = [field.name for field in dataclasses.fields(Retest)]


@dataclass(frozen=True, slots=True)
class RetestStory:
    """A re-test, the state of its job, and what was said."""

    retest: Retest
    state: JobState
    reason: str | None
    """Why it failed, or why it waits."""
    answers: Answers | None
    """None until it is answered, and once the content is erased."""


def save(conn: sa.Connection, retest: Retest) -> None:
    """Keep what was asked. Its job is in the outbox already."""
    conn.execute(sa.insert(retests).values(_row(retest)))


def keep_answers(
    conn: sa.Connection, retest_id: str, answers: Answers, outcome: Outcome, at: datetime, project: str
) -> bool:
    """Keep what the model said. Returns False, changing nothing, if it is there already.

    Raises NotFound, also if the exchange's content was erased meanwhile: what was forgotten is not written anew.
    """
    retest = load(conn, retest_id, project=project)
    captured.load_salt(conn, retest.exchange_id, project=project)
    row = {
        "project": project,
        "retest_id": retest_id,
        "exchange_id": retest.exchange_id,
        "blob": codec.pack_json(dataclasses.asdict(answers)),
        "created_at": at,
    }
    if not insert_new(conn, retest_texts, row):
        return False
    this = (retests.c.project == project, retests.c.id == retest_id)
    conn.execute(sa.update(retests).where(*this).values(outcome=dataclasses.asdict(outcome), answered_at=at))
    return True


def load(conn: sa.Connection, retest_id: str, *, project: str = DEFAULT_PROJECT) -> Retest:
    """Raises NotFound."""
    query = sa.select(retests).where(retests.c.project == project, retests.c.id == retest_id)
    row = conn.execute(query).first()
    if row is None:
        raise NotFound(f"there is no re-test {retest_id!r} in project {project!r}")
    return _retest(row._mapping)


def story(conn: sa.Connection, retest_id: str, *, project: str = DEFAULT_PROJECT) -> RetestStory:
    """Raises NotFound."""
    retest = load(conn, retest_id, project=project)
    return _stories(conn, project, retests.c.id == retest.id)[0]


def stories(conn: sa.Connection, exchange_id: str, *, project: str = DEFAULT_PROJECT) -> tuple[RetestStory, ...]:
    """All re-tests of an exchange, newest first."""
    return _stories(conn, project, retests.c.exchange_id == exchange_id)


def _stories(conn: sa.Connection, project: str, which: sa.ColumnElement[bool]) -> tuple[RetestStory, ...]:
    its_job = sa.and_(outbox.c.project == retests.c.project, outbox.c.id == retests.c.job_id)
    its_texts = sa.and_(retest_texts.c.project == retests.c.project, retest_texts.c.retest_id == retests.c.id)
    query = (
        sa.select(retests, outbox.c.state, outbox.c.reason, retest_texts.c.blob)
        .select_from(retests.join(outbox, its_job).outerjoin(retest_texts, its_texts))
        .where(retests.c.project == project, which)
        .order_by(retests.c.created_at.desc(), retests.c.id.desc())
    )
    return tuple(
        RetestStory(_retest(row._mapping), row.state, row.reason, _answers(row.blob, row.id))
        for row in conn.execute(query)
    )


def _row(retest: Retest) -> dict[str, Any]:
    row = {name: getattr(retest, name) for name in _FIELDS}
    outcome = sa.null() if retest.outcome is None else dataclasses.asdict(retest.outcome)
    return row | {"players": list(retest.players), "outcome": outcome}


def _retest(row: Mapping[Any, Any]) -> Retest:
    fields = {name: row[name] for name in _FIELDS}
    given = row["outcome"]
    outcome = None
    if given is not None:
        flags = tuple(Raised(**flag) for flag in given["flags"])
        outcome = codec.build(Outcome, {**given, "flags": flags}, f"outcome of re-test {row['id']}")
    return Retest(**fields | {"players": tuple(row["players"]), "outcome": outcome})


def _answers(blob: bytes | None, retest_id: str) -> Answers | None:
    if blob is None:
        return None
    found = codec.unpack_json(blob, f"answers of re-test {retest_id}")
    return Answers(Spoken(**found["control"]), Spoken(**found["removed"]))
