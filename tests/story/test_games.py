"""Games that are no production request: the same jobs, evidence, store and checks as for one."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from sqlalchemy import Engine
from typer.testing import CliRunner

from spex_proxy import cli
from spex_proxy.facts.errors import CannotExplain, PluginError
from spex_proxy.facts.exchange import Message
from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.recipe import Recipe
from spex_proxy.flows.explain import explain
from spex_proxy.flows.game import Stored, enqueue_game, store_game
from spex_proxy.flows.retest import ask_retest
from spex_proxy.flows.written_game import question_of
from spex_proxy.plug.kinds import Measured
from spex_proxy.store import browse, exchanges, games
from spex_proxy.store.connect import reading
from spex_proxy.study.html import standalone
from spex_proxy.study.stored import load_sheet
from spex_proxy.study.terminal import explanation_panel
from spex_proxy.study.view import make_view
from tests.story.explaining import Desk, question
from tests.story.games import NAMES, Planted, plugins
from tests.story.scripted_model import ScriptedModel, planted

TERMS = [[[0], 2.0], [[1, 3], 3.0], [[4], -1.0]]
RECIPE = Recipe(budget=200, target_r2=1.0, replicates=2)
FULL = 2 + 3 - 1


@pytest.fixture
def desk(store: Engine) -> Iterator[Desk]:
    """Nothing answers where the model server should be: it is not needed."""
    Planted.asked.clear()
    made = Desk("http://127.0.0.1:9", store, RECIPE, plugins=plugins())
    yield made
    made.close()


async def play(desk: Desk, config: Mapping[str, Any], recipe: Recipe = RECIPE, maker: str = "planted") -> Explanation:
    with desk.parts() as parts:
        async with parts.servers:
            stored = await store_game(maker, config, parts, project="default")
            return await explain(stored.exchange.id, recipe, parts, project="default")


async def test_what_was_planted_is_found_stored_and_verified(desk: Desk) -> None:
    closed = Planted.closed
    found = await play(desk, {"terms": TERMS})
    worth = {i.players: i.moebius for i in found.interactions if abs(i.moebius) > 1e-9}
    assert worth == pytest.approx({(0,): 2, (1, 3): 3, (4,): -1})
    assert (found.fidelity.value_full, found.fidelity.value_empty) == pytest.approx((FULL, 0))
    assert found.verdict == "reliable"
    assert all(check.is_passed and not check.is_skipped for check in desk.checks(found.id))
    assert Planted.closed == closed + 2, "once to be stored, once to be explained"
    with reading(desk.store) as connection:
        game = games.load_game(connection, found.game_ids[0])
        view = make_view(found, game, exchanges.load_exchange(connection, str(found.exchange_id)))
    assert game.kind == "components"
    assert [(one.text, one.provenance) for one in view.segments[:4]] == [
        ("ada", "player:row 0"), ("bob", "player:row 0"), ("cyd", "player:row 0"), ("dan", "player:row 1"),
    ]  # fmt: skip


async def test_what_a_person_sees_of_it(desk: Desk) -> None:
    found = await play(desk, {"terms": TERMS})
    with reading(desk.store) as connection:
        sheet, damage = load_sheet(connection, found.id, "default")
        story = browse.story(connection, found.id, "default")
    assert damage == ""
    assert [(row.name, [cell.label for cell in row.cells]) for row in sheet.grid] == [
        ("row 0", ["ada", "bob", "cyd"]), ("row 1", ["dan", "eva", "fay"]),
    ]  # fmt: skip
    shares = {"single players": "81%", "interactions within a group": "0%", "interactions across groups": "19%"}
    assert dict(sheet.energy) == shares  # F of 2, 3 for a pair, -1: 1, .75 twice, -.5; and .75 for the pair
    page = standalone(sheet)
    for words in ("What makes this value?", "first question", "Nothing was trained.", "in points", "row 1"):
        assert words in page
    for words in ("likelier", "segment", "prompt was", "log-probability"):
        assert words not in page.partition("<main>")[2].partition("</main>")[0]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(explanation_panel(make_view(story.explanation, story.game, story.exchange)))
    told = console.export_text()
    assert "what moved it  (points that keeping the player adds)" in told
    assert "row 0 1 2 3 " in " ".join(told.split())


async def test_the_same_game_goes_on_from_what_was_measured(desk: Desk) -> None:
    first = await play(desk, {"terms": TERMS}, Recipe(budget=20, target_r2=1.0, replicates=2))
    again = await play(desk, {"terms": TERMS})
    assert again.game_ids == first.game_ids
    full = bytes([1] * len(NAMES))
    often = Counter(Planted.asked)
    assert often.pop(full) == 2  # its replicates
    assert set(often.values()) == {1}
    assert len(often) == 2 ** len(NAMES) - 1


async def test_one_item_is_a_target_of_the_same_evidence(desk: Desk) -> None:
    whole = await play(desk, {"terms": TERMS})
    asked = len(Planted.asked)
    second = Recipe(budget=200, target_r2=1.0, replicates=2, target="chars:15-30")
    one = await play(desk, {"terms": TERMS}, second)
    assert one.fidelity.value_full == pytest.approx(FULL + 1)
    assert (one.game_ids, len(Planted.asked)) == (whole.game_ids, asked)


async def test_a_worker_plays_it_as_a_job(desk: Desk) -> None:
    with desk.parts() as parts:
        stored: Stored = await store_game("planted", {"terms": TERMS}, parts, project="default")
        await enqueue_game(stored, RECIPE, parts)
    (report,) = await desk.work_off()
    assert report.error is None
    assert report.explanation is not None
    assert report.explanation.exchange_id == stored.exchange.id
    with reading(desk.store) as connection:
        (row,) = browse.newest(connection, "default", 5)
    assert (row.model, row.state) == ("six friends", "reliable")


async def test_a_game_that_is_asked_of_the_model_server(store: Engine) -> None:
    with ScriptedModel(planted(-12, {("ada",): 2, ("bob", "dan"): 3})) as model:
        desk = Desk(model.url, store, RECIPE, plugins=plugins())
        found = await play(desk, {}, maker="echo")
        desk.close()
    worth = {i.players: i.moebius for i in found.interactions if abs(i.moebius) > 1e-6}
    assert worth == pytest.approx({(0,): 2, (1, 3): 3})
    counted = sum(map(len, model.asked))
    assert found.cost.prompt_tokens == counted > 0


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"terms": TERMS, "fails": 2}, CannotExplain, "can't be measured: no"),
        ({"terms": TERMS, "fails": 2, "silent": True}, CannotExplain, "no finite number"),
        ({"terms": TERMS, "raises": 2}, PluginError, "failed with a ZeroDivisionError"),
        ({"terms": TERMS, "subject": ""}, CannotExplain, "`subject` is empty: name it"),
    ],
)
async def test_what_goes_wrong_is_said_and_what_was_measured_stays(
    desk: Desk, config: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as raised:
        await play(desk, config)
    assert "secret" not in str(raised.value)
    with reading(desk.store) as connection:
        values = connection.exec_driver_sql("SELECT sum(n_masks) FROM evidence_blocks").scalar()
        assert connection.exec_driver_sql("SELECT count(*) FROM explanations").scalar() == 0
    assert values or not Planted.asked or "raises" in config


async def test_a_game_that_changed_is_not_mixed_with_what_it_was(desk: Desk) -> None:
    config: dict[str, Any] = {"terms": [*TERMS]}
    old = await play(desk, config)
    config["terms"].append([[5], 1.0])
    new = await play(desk, config)
    assert old.exchange_id != new.exchange_id
    with desk.store.begin() as connection:
        stored = exchanges.load_exchange(connection, str(old.exchange_id))
    assert stored.request["rules"]["digest"] != config


async def test_nothing_of_it_can_be_asked_as_a_prompt(desk: Desk) -> None:
    found = await play(desk, {"terms": TERMS})
    with desk.store.begin() as connection, pytest.raises(CannotExplain, match="a game, no request"):
        ask_retest(connection, found.id, [0], who="ann", project="default")


def test_each_is_closed_whatever_happens(desk: Desk) -> None:
    closed = Planted.closed
    with pytest.raises(PluginError):
        asyncio.run(play(desk, {"terms": TERMS, "raises": 0}))
    assert Planted.closed == closed + 2


def test_a_stored_answer_becomes_a_question(model_and_desk: tuple[ScriptedModel, Desk]) -> None:
    model, desk = model_and_desk
    asked = desk.ask(question("Is it so?", temperature=0))
    with reading(desk.store) as connection:
        exchange = exchanges.load_exchange(connection, asked)
    assert question_of(exchange) == {
        "messages": [{"role": "user", "content": "Is it so?"}],
        "answer": model.answer,
        "name": f"exchange {asked}",
    }
    tool = replace(exchange, messages=(*exchange.messages, Message("tool_definition", "{}", kind="tool_definition")))
    with pytest.raises(CannotExplain, match="more than plain messages"):
        question_of(tool)
    with pytest.raises(CannotExplain, match="no answer in text"):
        question_of(replace(exchange, output_text=""))
    with pytest.raises(CannotExplain, match="more than one choice"):
        question_of(replace(exchange, obstacle="several_choices"))


@pytest.fixture
def model_and_desk(store: Engine) -> Iterator[tuple[ScriptedModel, Desk]]:
    with ScriptedModel(planted(-3, {})) as model:
        made = Desk(model.url, store, RECIPE)
        yield model, made
        made.close()


async def test_a_table_of_what_was_measured_elsewhere(desk: Desk, tmp_path: Path) -> None:
    """Forty coalitions of six friends: all of them are taken, and nothing else is asked."""
    masks = np.random.Generator(np.random.PCG64(1)).random((38, 6)) < 0.5
    masks = np.unique(np.concatenate([masks, np.ones((1, 6), bool), np.zeros((1, 6), bool)]), axis=0)
    np.savez(tmp_path / "runs.npz", masks=masks, values=2.0 * masks[:, 0] + 3.0 * masks[:, 1] * masks[:, 3])
    config = {"file": str(tmp_path / "runs.npz"), "values": "values", "subject": "my runs"}
    found = await play(desk, config, Recipe(budget=8, target_r2=1.0), maker="table")
    assert found.how["stopped"] == "all that was measured elsewhere"
    assert found.cost.masks == len(masks)
    assert found.fidelity.value_full == pytest.approx(5)
    assert found.interactions[0].players in {(0,), (1,), (3,), (1, 3)}
    assert all(check.is_passed for check in desk.checks(found.id))


async def test_a_game_is_closed_once_nobody_measures_any_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, seen = threading.Event(), threading.Event(), list[str]()
    measure, close = Planted.measure, Planted.close

    def slowly(self: Planted, masks: NDArray[np.bool_]) -> Measured:
        begun.set()
        go_on.wait(20)
        seen.append("measured")
        return measure(self, masks)

    def noted(self: Planted) -> None:
        seen.append("closed")
        close(self)

    monkeypatch.setattr(Planted, "measure", slowly)
    monkeypatch.setattr(Planted, "close", noted)
    playing = asyncio.create_task(play(desk, {"terms": TERMS}))
    await asyncio.to_thread(begun.wait, 20)
    playing.cancel()
    await asyncio.sleep(0.2)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert seen == ["closed", "measured", "closed"]  # the first when it was stored


def test_shares_are_of_a_queued_game(tmp_path: Path) -> None:
    said = CliRunner().invoke(
        cli.app, ["game", "run", "planted", "--config", str(tmp_path / "no.yaml"), "--shares", "2"]
    )
    assert "say --queue too" in str(said.exception)
