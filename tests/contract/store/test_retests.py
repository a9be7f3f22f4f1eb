"""Re-tests in the store: their answers are content, their findings are not; jobs of other kinds stay out of lists."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.retest import Answers, Outcome, Raised, Retest, Spoken
from spex_proxy.store import exchanges, explanations, games, outbox, retests
from spex_proxy.store.connect import reading
from spex_proxy.store.listing import one_exchange
from tests.contract.store.samples import NOON, Make

ANSWERS = Answers(Spoken("It is warm. ☀\x00\ud800", "stop"), Spoken("", "length"))
OUTCOME = Outcome("silent", True, 1.0, 0.0, (Raised("refusal", True, False),), 80, 12)


def asked(conn: sa.Connection, make: Make) -> Retest:
    exchange = make.saved(conn)
    game = games.save_game(conn, make.game(exchange.id))
    explanation = make.explanation(exchange.id, (game.id,))
    explanations.save_explanation(conn, explanation)
    retest = Retest(make.id(), "default", exchange.id, explanation.id, "", (0, 2), "ann", NOON)
    job_id = outbox.enqueue(
        conn, exchange_id=exchange.id, recipe=make.recipe, why="asked", kind="retest", task={"retest_id": retest.id}
    )
    retest = replace(retest, job_id=job_id)
    retests.save(conn, retest)
    return retest


def test_what_is_kept_comes_back(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        retest = asked(conn, make)
        waiting = retests.story(conn, retest.id)
    assert (waiting.retest, waiting.state, waiting.answers) == (retest, "queued", None)
    with engine.begin() as conn:
        assert retests.keep_answers(conn, retest.id, ANSWERS, OUTCOME, NOON, "default")
        assert not retests.keep_answers(conn, retest.id, ANSWERS, replace(OUTCOME, finding="same"), NOON, "default")
    with reading(engine) as conn:
        found = retests.story(conn, retest.id)
        assert retests.stories(conn, retest.exchange_id) == (found,)
        assert retests.stories(conn, "another") == ()
    assert found.answers == ANSWERS
    assert found.retest == replace(retest, outcome=OUTCOME, answered_at=NOON)
    assert found.retest.outcome is not None
    assert found.retest.outcome.is_gone is True


def test_erasing_an_exchange_destroys_its_answers_and_lets_none_in(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        answered, late = asked(conn, make), asked(conn, make)
        retests.keep_answers(conn, answered.id, ANSWERS, OUTCOME, NOON, "default")
        for retest in (answered, late):
            exchanges.erase_content(conn, retest.exchange_id, datetime.now(UTC))
    with reading(engine) as conn:
        found = retests.story(conn, answered.id)
        blobs = conn.execute(sa.text("SELECT blob FROM retest_texts")).scalars().all()
    assert found.answers is None
    assert found.retest.outcome == OUTCOME
    assert blobs == [None]
    with engine.begin() as conn, pytest.raises(NotFound, match="erased"):
        retests.keep_answers(conn, late.id, ANSWERS, OUTCOME, NOON, "default")


def test_a_retest_is_no_explanation_under_way(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        retest = asked(conn, make)
        assert one_exchange(conn, "default", retest.exchange_id).state == "reliable"
        assert outbox.jobs_of_exchange(conn, retest.exchange_id) == ()
        (job,) = outbox.jobs_of_exchange(conn, retest.exchange_id, kind="retest")
        claimed = outbox.claim(conn, "worker", job_id=job.id)
    assert claimed is not None
    assert (claimed.kind, claimed.task) == ("retest", {"retest_id": retest.id})


def test_jobs_from_before_are_explanations(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        job_id = outbox.enqueue(conn, exchange_id=exchange.id, recipe=make.recipe, why="drawn")
        task = conn.execute(sa.text("SELECT task IS NULL FROM outbox WHERE id = :id"), {"id": job_id}).scalar_one()
        assert outbox.load_job(conn, job_id).kind == "explain"
    assert task, "no JSON null: that would be something"


def test_an_unknown_one_is_said_to_be_unknown(engine: sa.Engine) -> None:
    with reading(engine) as conn, pytest.raises(NotFound, match="no re-test 'nobody'"):
        retests.story(conn, "nobody")
