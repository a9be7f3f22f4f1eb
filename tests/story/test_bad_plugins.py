"""A plugin that raises or breaks its contract fails its jobs, by name; the worker goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from tests.story.bad_plugins import EXPECTED, SegmenterThatDeclines, kind_of, plugins_with
from tests.story.explaining import RECIPE, Desk, count, question, sentences
from tests.story.scripted_model import ScriptedModel, planted


@pytest.fixture
def desk(store: Engine) -> Iterator[Desk]:
    with ScriptedModel(planted(-9, {("Bravo",): 2})) as model:
        made = Desk(model.url, store)
        yield made
        made.close()


@pytest.mark.parametrize("case", EXPECTED)
async def test_a_bad_plugin_fails_its_job_by_name(case: str, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    plugin, words = EXPECTED[case]
    kind, name = kind_of(plugin), plugin.__name__
    desk.plugins = plugins_with(plugin)
    desk.recipe = replace(RECIPE, **{kind: name})
    bad = desk.ask(question(sentences(4)))
    desk.recipe = RECIPE
    good = desk.ask(question(sentences(3)))
    await desk.work_off()
    (job,) = desk.jobs(bad)
    assert job.state == "failed"
    assert job.reason is not None
    assert f"the {kind} {name!r}" in job.reason
    assert words in job.reason
    assert "Alpha" not in job.reason, "a reason outlives the content"
    assert desk.jobs(good)[0].state == "done"
    assert count(desk.store, "evidence_blocks JOIN games ON game_id = id", f"exchange_id = '{bad}'") == 0
    assert name in caplog.text  # with its stack: the author needs it


async def test_a_plugin_may_say_no_to_one_exchange(desk: Desk) -> None:
    desk.plugins = plugins_with(SegmenterThatDeclines)
    desk.recipe = replace(RECIPE, segmenter="SegmenterThatDeclines")
    exchange = desk.ask(question(sentences(4)))
    await desk.work_off()
    assert desk.jobs(exchange)[0].reason == "this is a poem"


async def test_a_plugin_that_is_not_installed(desk: Desk) -> None:
    desk.recipe = replace(RECIPE, value="sentiment")
    exchange = desk.ask(question(sentences(4)))
    await desk.work_off()
    assert "no value is called 'sentiment'" in str(desk.jobs(exchange)[0].reason)
    assert count(desk.store, "explanations") == 0
