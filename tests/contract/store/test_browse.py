"""What the API reads beside single facts: lists of explanations, evidence, progress; and the asking for more."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from spex_proxy.facts.errors import CannotExplain, NotFound
from spex_proxy.facts.query import Query
from spex_proxy.flows.ask import ask
from spex_proxy.store import explanations, games, outbox, steering
from spex_proxy.store.browse import exchange_story
from spex_proxy.store.browse_explanations import list_explanations, measured
from spex_proxy.store.browse_jobs import job_progress
from spex_proxy.store.connect import reading
from spex_proxy.store.exchanges import erase_content
from spex_proxy.store.listing import list_exchanges, models
from spex_proxy.store.outbox import Priority
from tests.contract.store.samples import NOON, Make


def explained(conn: sa.Connection, make: Make, exchange_id: str, blocks: int = 2, **changes: object) -> str:
    game = games.save_game(conn, make.game(exchange_id))
    for number in range(blocks):
        games.append_block(conn, game.id, make.block(number))
    made = make.explanation(exchange_id, (game.id,), **changes)
    explanations.save_explanation(conn, made)
    return made.id


def test_explanations_are_listed_by_time_then_id_and_filtered(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        ids = [
            explained(conn, make, exchange.id, created_at=NOON + timedelta(seconds=s), verdict=verdict)
            for s, verdict in ((0, "reliable"), (0, "unreliable"), (1, "reliable"))
        ]
    with reading(engine) as conn:
        first = list_explanations(conn, "default", limit=2)
        assert [line.id for line in first.lines] == [ids[2], ids[1]]
        assert [flag.name for flag in first.lines[0].flags] == ["injection", "cut"]
        rest = list_explanations(conn, "default", cursor=first.next_cursor, limit=2)
        assert ([line.id for line in rest.lines], rest.next_cursor) == ([ids[0]], None)
        for filters, expected in (
            (Query(verdict=("unreliable",)), [ids[1]]),
            (Query(since=NOON + timedelta(seconds=1)), [ids[2]]),
            (Query(until=NOON + timedelta(seconds=1), flag="cut"), [ids[1], ids[0]]),
            (Query(exchange="another"), []),
        ):
            assert [line.id for line in list_explanations(conn, "default", filters).lines] == expected
        assert list_explanations(conn, "theirs").lines == ()


def test_evidence_is_cut_to_what_is_cited(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        cited = explained(conn, make, exchange.id, how={"blocks": [1]})
    with reading(engine) as conn:
        (found,) = measured(conn, explanations.load_explanation(conn, cited))
    assert [block.number for block in found.blocks] == [0]
    assert found.game.exchange_id == exchange.id


def test_an_exchanges_story_has_its_jobs_and_explanations_newest_first(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        made = [explained(conn, make, exchange.id, created_at=NOON + timedelta(seconds=s)) for s in range(2)]
        jobs = [outbox.enqueue(conn, exchange_id=exchange.id, recipe=make.recipe, why="drawn") for _ in range(2)]
    with reading(engine) as conn:
        story = exchange_story(conn, str(exchange.upstream_id), "default")
    assert story.explanation_ids == (made[1], made[0])
    assert {job.id for job in story.jobs} == set(jobs)
    assert (story.exchange, story.explain_why, story.capture_probability) == (exchange, "drawn", 0.25)


def test_a_place_in_the_queue_is_the_order_of_claims(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        jobs = {
            outbox.enqueue(conn, exchange_id=exchange.id, recipe=make.recipe, why="x", priority=priority): priority
            for priority in (Priority.SAMPLED, Priority.ASKED, Priority.SAMPLED, Priority.FLAGGED, Priority.ASKED)
        }
    with reading(engine) as conn:
        places = {job_progress(conn, job, project="default").position: job for job in jobs}
    assert sorted(filter(None, places)) == [1, 2, 3, 4, 5]
    for place in range(1, 6):
        with engine.begin() as conn:
            job = outbox.claim(conn, "w")
        assert job is not None
        assert job.id == places[place]
    with reading(engine) as conn:
        assert {job_progress(conn, job, project="default").position for job in jobs} == {None}
        with pytest.raises(NotFound):
            job_progress(conn, places[1], project="theirs")


def test_asking_leaves_one_urgent_job_and_keys_are_kept_for_ever(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        first = ask(conn, exchange.id, make.recipe, project="default")
        again = ask(conn, exchange.id, make.recipe, project="default")
        keyed = ask(conn, exchange.id, make.recipe, project="default", key="k")
    assert (first.is_new, again.is_new, again.job_id) == (True, False, first.job_id)
    assert keyed.is_new
    with engine.begin() as conn:
        assert steering.cancel(conn, keyed.job_id)
        later = ask(conn, exchange.id, make.recipe, project="default", key="k")
        assert outbox.load_job(conn, first.job_id).priority == Priority.ASKED
    assert (later.job_id, later.is_new, later.fits) == (keyed.job_id, False, True)


def test_what_is_erased_or_unknown_is_not_asked_for(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        erase_content(conn, exchange.id, NOON)
        with pytest.raises(CannotExplain, match="erased"):
            ask(conn, exchange.id, make.recipe, project="default")
        with pytest.raises(NotFound):
            ask(conn, exchange.id, make.recipe, project="theirs")


def test_a_list_without_answers_reads_no_content(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        exchange = make.saved(conn)
        conn.execute(sa.text("UPDATE contents SET blob = salt"))  # whoever reads it would notice
    with reading(engine) as conn:
        (row,) = list_exchanges(conn, "default", with_answers=False).rows
    assert (row.exchange_id, row.answer, row.kind, row.streamed) == (exchange.id, "", "chat", True)


def test_models_are_named_once_each_and_not_those_of_others(engine: sa.Engine, make: Make) -> None:
    with reading(engine) as conn:
        assert models(conn, "default") == ()
    with engine.begin() as conn:
        for name in ("b", "a", "c-7b", "b", "a"):
            make.saved(conn, model=name)
        make.saved(conn, model="d", project="other")
    with reading(engine) as conn:
        assert models(conn, "default") == ("a", "b", "c-7b")
        assert models(conn, "other") == ("d",)
