"""Story 2 on a scripted model: what was planted is found, and nothing is asked twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.recipe import Recipe
from tests.story.explaining import RECIPE, WORDS, Desk, count, question, sentences
from tests.story.scripted_model import ANSWER, EVERY_OTHER, ScriptedModel, planted

GAME = planted(-12, {("Bravo",): 1.5, ("Echo",): -0.5, ("Alpha", "Delta"): 4})
FIVE = question(sentences(5))
SIX = question(sentences(6))


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(GAME) as server:
        yield server


@pytest.fixture
def desk(model: ScriptedModel, store: Engine) -> Iterator[Desk]:
    made = Desk(model.url, store)
    yield made
    made.close()


def term(explanation: Explanation, *words: str) -> float:
    """The Banzhaf interaction of the players that these words stand for."""
    players = tuple(WORDS.index(word) for word in words)
    return next(i.banzhaf for i in explanation.interactions if i.players == players)


async def test_every_mask_asked_gives_the_planted_game_exactly(desk: Desk, model: ScriptedModel) -> None:
    desk.ask(FIVE)
    found = await desk.explanation()
    assert found.fidelity.r2 == pytest.approx(1.0)
    assert found.verdict == "reliable"
    rest = EVERY_OTHER * (len(model.ids_of(ANSWER)) - 1)
    assert found.fidelity.value_full == pytest.approx(-12 + 1.5 - 0.5 + 4 + rest)
    assert found.fidelity.value_empty == pytest.approx(-12 + rest)
    assert term(found, "Alpha", "Delta") == pytest.approx(4)
    assert term(found, "Alpha") == pytest.approx(2)  # its share when Delta is there half of the time
    assert term(found, "Bravo") == pytest.approx(1.5)
    assert term(found, "Echo") == pytest.approx(-0.5)
    joint = next(i for i in found.interactions if i.players == (0, 3))
    assert (joint.fourier, joint.moebius) == pytest.approx((1, 4))
    assert all(abs(i.banzhaf) < 1e-9 for i in found.interactions if i.players not in {(0,), (1,), (3,), (4,), (0, 3)})
    assert (found.cost.masks, found.flags) == (32 + 2, ())
    assert all(check.is_passed for check in desk.checks(found.id))


@pytest.mark.timeout(120)
async def test_few_masks_find_the_planted_interaction(desk: Desk) -> None:
    """Ten players, 128 of 1,024 masks: the strongest pair is the planted one."""
    desk.recipe = Recipe(segmenter="sentence", budget=128)
    desk.ask(question(sentences(10)))
    found = await desk.explanation()
    assert found.how["method"] == "stack"
    assert found.cost.masks <= 128
    assert found.fidelity.r2 > 0.9
    pairs = [i for i in found.interactions if i.order == 2]
    assert pairs[0].players == (WORDS.index("Alpha"), WORDS.index("Delta"))
    assert pairs[0].banzhaf == pytest.approx(4, abs=0.8)
    assert abs(pairs[0].fourier) > 5 * abs(pairs[1].fourier)
    assert all(check.is_passed for check in desk.checks(found.id))


async def test_a_job_tells_how_good_it_is_so_far(desk: Desk) -> None:
    """R2 of all whole rounds is stored with the next one's first batch."""
    desk.recipe = Recipe(segmenter="sentence", budget=160, target_r2=1.0)
    exchange = desk.ask(question(sentences(10)))
    found = await desk.explanation()
    rounds = [report.progress for report in desk.reports if report.progress and "so far" in report.progress.note]
    (job,) = desk.jobs(exchange)
    assert job.r2_so_far is not None
    assert rounds[-1].note == f"R2 is {job.r2_so_far:.2f} so far"
    assert found.fidelity.r2 != job.r2_so_far, "the last round's own figure is the explanation's"


async def test_a_completion_is_explained_too(desk: Desk) -> None:
    desk.ask({"model": "scripted", "prompt": sentences(4)}, path="/v1/completions")
    found = await desk.explanation()
    # the very first token of a prompt is nobody's, so `Alpha` can't be taken away
    assert term(found, "Bravo") == pytest.approx(1.5)
    assert term(found, "Delta") == pytest.approx(4)


async def test_a_server_without_the_render_route(desk: Desk, model: ScriptedModel) -> None:
    model.renders = False
    exchange = desk.ask(FIVE)
    found = await desk.explanation()
    assert term(found, "Alpha", "Delta") == pytest.approx(4)
    assert count(desk.store, "outbox", f"state='done' AND exchange_id='{exchange}'") == 1


async def test_every_mask_is_asked_once_and_the_whole_prompt_three_times(desk: Desk, model: ScriptedModel) -> None:
    desk.ask(FIVE)
    await desk.explanation()
    asked = Counter(model.asked)
    assert sorted(asked.values()) == [1] * 31 + [3]
    whole = max(asked, key=asked.__getitem__)
    assert model.text_of(whole) == model.prompt_text(FIVE) + ANSWER
    assert whole == max(asked, key=len)


async def test_what_is_sent_is_what_vllm_wants(desk: Desk, model: ScriptedModel) -> None:
    """Priority below production, a cache salt of its own for each explanation, never more than a batch."""
    desk.ask(FIVE)
    desk.ask(FIVE)
    reports = await desk.work_off()
    assert [r.error for r in reports] == [None, None]
    bodies = [seen.body for seen in model.scoring_requests()]
    assert all(b'"priority":100' in body for body in bodies)
    salts = {body.split(b'"cache_salt":"')[1].split(b'"')[0] for body in bodies}
    assert len(salts) == 2
    assert max(body.count(b"],[") for body in bodies) == 7


async def test_a_second_explanation_uses_the_evidence_of_the_first(desk: Desk, model: ScriptedModel) -> None:
    exchange = desk.ask(FIVE)
    first = await desk.explanation()
    asked = len(model.asked)
    desk.queue_again(exchange)
    second = await desk.explanation()
    assert len(model.asked) == asked
    assert second.id != first.id
    assert second.game_ids == first.game_ids
    assert (second.spectrum.coefficients == first.spectrum.coefficients).all()


@pytest.mark.timeout(120)
async def test_an_explanation_still_verifies_after_more_was_asked_of_its_game(desk: Desk) -> None:
    """Evidence belongs to the game; an explanation says how much of it there was in its day."""
    desk.recipe = replace(RECIPE, budget=24)
    exchange = desk.ask(SIX)
    early = await desk.explanation()
    desk.queue_again(exchange, budget=80)
    late = await desk.explanation()
    assert late.game_ids == early.game_ids
    assert (early.cost.masks, late.cost.masks) == (24, 66)
    for found in (early, late):
        assert all(check.is_passed for check in desk.checks(found.id)), desk.checks(found.id)


async def test_nothing_to_explain_is_an_answer(desk: Desk, model: ScriptedModel) -> None:
    model.value = planted(-5, {})
    desk.ask(FIVE)
    found = await desk.explanation()
    assert found.verdict == "nothing_to_explain"
    assert [flag.name for flag in found.flags] == ["nothing_to_explain"]
    assert all(check.is_passed for check in desk.checks(found.id))


async def test_a_long_answer_is_cut_and_says_so(desk: Desk, model: ScriptedModel) -> None:
    desk.recipe = replace(RECIPE, max_scored_tokens=2)
    desk.ask(FIVE)
    found = await desk.explanation()
    assert found.target.is_cut
    assert found.flags[-1].name == "output_cut"
    assert found.fidelity.value_full == pytest.approx(-7 + EVERY_OTHER)
    assert all(check.is_passed for check in desk.checks(found.id))
