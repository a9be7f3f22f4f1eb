"""Coarse to fine: a recipe with `finer` is explained by its parts, then inside of those that matter; both verify."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from spex_proxy.facts.explanation import Explanation
from spex_proxy.flows.finer import WHY
from spex_proxy.store import exchanges, games
from spex_proxy.store.connect import reading
from tests.story.explaining import RECIPE, Desk, sentences
from tests.story.scripted_model import ScriptedModel, planted

COARSE = replace(RECIPE, segmenter="message", finer="sentence", budget=40)
MESSAGES = [
    {"role": "system", "content": "Be brief. Be kind. Be honest."},
    {"role": "user", "content": sentences(5)},
    {"role": "assistant", "content": "One is here. Two is here. Three is here."},
    {"role": "user", "content": "Kilo is here. Lima is here."},
]
QUESTION = {"model": "scripted", "messages": MESSAGES}


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(planted(-12, {("Bravo",): 2, ("Alpha", "Delta"): 4})) as server:
        yield server


async def levels(desk: Desk, most_jobs: int = 10) -> list[Explanation]:
    found = []
    for report in await desk.work_off(most_jobs):
        assert report.explanation is not None, report.error
        found.append(report.explanation)
    return found


async def test_the_parts_that_matter_are_explained_from_inside(model: ScriptedModel, store: Engine) -> None:
    desk = Desk(model.url, store, COARSE)
    exchange_id = desk.ask(QUESTION)
    coarse, fine = await levels(desk)
    with reading(store) as connection:
        above, below = (games.load_game(connection, one.game_ids[0]) for one in (coarse, fine))
        tokens = exchanges.load_tokens(connection, exchange_id)
    assert tokens is not None
    assert (len(above.players), len(below.players)) == (4, 5)
    assert {segment.message for segment in below.players.segments} == {1}
    assert (above.parent_game_id, below.parent_game_id) == (None, above.id)
    assert (fine.recipe.inside, fine.recipe.segmenter, fine.recipe.finer) == (coarse.id, "sentence", "")
    assert "1 of 4 (message)" in below.players.notes[-1]
    strongest = {tuple(one.players) for one in fine.interactions[:4]}
    assert {(1,), (0, 3)} <= strongest
    # everything else stands in every prompt of the finer level, also in the one with nothing of its own
    emptiest = min(model.asked[-32:], key=len)
    kept = model.text_of(emptiest)
    assert "Be honest." in kept
    assert "Lima" in kept
    assert "Bravo" not in kept
    for one in (coarse, fine):
        assert all(check.is_passed for check in desk.checks(one.id)), desk.checks(one.id)
    assert [job.why for job in desk.jobs(exchange_id)].count(WHY) == 1
    desk.close()


async def test_the_finer_job_is_left_with_the_coarser_explanation_and_survives_its_worker(
    model: ScriptedModel, store: Engine
) -> None:
    desk = Desk(model.url, store, COARSE)
    exchange_id = desk.ask(QUESTION)
    (coarse,) = await levels(desk, most_jobs=1)
    (waiting,) = [job for job in desk.jobs(exchange_id) if job.why == WHY]
    assert (waiting.state, waiting.recipe().inside) == ("queued", coarse.id)
    another = Desk(model.url, store, COARSE)
    (fine,) = await levels(another)
    assert fine.recipe.inside == coarse.id
    desk.close()
    another.close()


async def test_players_that_the_coarser_level_does_not_give_are_found_out(model: ScriptedModel, store: Engine) -> None:
    desk = Desk(model.url, store, COARSE)
    desk.ask(QUESTION)
    coarse, fine = await levels(desk)
    name = "the players are parts of what mattered in the coarser explanation"
    with store.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE explanations SET recipe = json_set(recipe, '$.inside', id) WHERE id = ?", (fine.id,)
        )
    assert [check.is_passed for check in desk.checks(fine.id) if check.name == name] == [False]
    assert [check for check in desk.checks(coarse.id) if check.name == name] == []
    desk.close()


async def test_where_nothing_matters_nothing_follows(store: Engine) -> None:
    with ScriptedModel(planted(-5, {})) as flat:
        desk = Desk(flat.url, store, COARSE)
        desk.ask(QUESTION)
        (only,) = await levels(desk)
        assert only.verdict == "nothing_to_explain"
        desk.close()
