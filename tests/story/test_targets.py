"""Explaining a part of an answer: its tokens are found, stored evidence is used, and `verify` follows it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from spex_proxy.facts.errors import CannotExplain
from spex_proxy.facts.explanation import Explanation
from spex_proxy.store import exchanges
from spex_proxy.store.columns import utc_now
from spex_proxy.store.connect import reading
from spex_proxy.wire.aiming import spelled_for
from tests.story.explaining import WORDS, Desk, question, sentences
from tests.story.scripted_model import ScriptedModel, planted

SAID = " It is warm today."
BY_TOKEN = [
    planted(-9, {("Alpha",): 1.0}),
    planted(-9, {("Bravo",): 2.0}),
    planted(-9, {("Charlie",): 3.0}),
    planted(-9, {("Delta", "Echo"): 4.0}),
]
"""What moves each token of the answer: ` It`, ` is`, ` warm`, ` today.`"""
CALLED = '<tool_call>\n{"name": "book_table", "arguments": {"city": "Rome", "for": 2}}\n</tool_call>'
FIVE = question(sentences(5))


class Speaker(ScriptedModel):
    """Says what a test wants, each of its tokens moved by a game of its own."""

    def __init__(self, said: str, calls: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(planted(-9, {}))
        self.said = said
        self.calls = calls
        self.by_token = BY_TOKEN

    def _speak(self, body: Mapping[str, Any]) -> dict[str, Any]:
        reply = super()._speak(body)
        (choice,) = reply["choices"]
        choice["message"] = {"role": "assistant", "content": None if self.calls else self.said}
        if self.calls:
            choice["message"]["tool_calls"] = list(self.calls)
        ids = self.ids_of(self.said)
        reply["usage"]["completion_tokens"] = len(ids)
        if body.get("return_token_ids"):
            choice["token_ids"] = ids
        return reply

    def _score_one(self, index: int, ids: list[int]) -> dict[str, Any]:
        self.asked.append(tuple(ids))
        text, whole = self.text_of(ids), self.ids_of(self.said)
        count = next(k for k in range(len(whole), 0, -1) if ids[-k:] == whole[:k])
        games = [self.by_token[i % len(self.by_token)] for i in range(count)]
        scored = [game(text) for game in games]
        rows = [{str(i): {"logprob": v, "rank": 1}} for i, v in zip(ids[-count:], scored, strict=True)]
        before = [{str(i): {"logprob": -1.0, "rank": 1}} for i in ids[:-count]]
        return {"index": index, "text": "x", "finish_reason": "length", "prompt_logprobs": [None, *before[1:], *rows]}


@pytest.fixture
def model() -> Iterator[Speaker]:
    with Speaker(SAID) as server:
        yield server


@pytest.fixture
def desk(model: Speaker, store: Engine) -> Iterator[Desk]:
    made = Desk(model.url, store)
    yield made
    made.close()


def effects(found: Explanation) -> dict[str, float]:
    """Word of a segment -> what keeping it adds, where that is anything."""
    alone = {i.players[0]: i.banzhaf for i in found.interactions if i.order == 1}
    return {WORDS[player]: pytest.approx(value) for player, value in alone.items() if abs(value) > 1e-6}


async def explain(desk: Desk, exchange: str, target: str, **changes: Any) -> Explanation:
    desk.queue_again(exchange, target=target, **changes)
    return await desk.explanation()


def spelled(desk: Desk, exchange: str, target: str) -> str:
    with reading(desk.store) as connection:
        return spelled_for(target, exchanges.load_exchange(connection, exchange))


async def test_a_part_of_an_explained_answer_asks_nothing_new(desk: Desk, model: Speaker) -> None:
    exchange = desk.ask(FIVE)
    whole = await desk.explanation()
    asked = len(model.asked)
    assert effects(whole) == {"Alpha": 1.0, "Bravo": 2.0, "Charlie": 3.0, "Delta": 2.0, "Echo": 2.0}
    parts = {
        "first_token": {"Alpha": 1.0},
        spelled(desk, exchange, "quote:warm"): {"Charlie": 3.0},
        "chars:4-10": {"Bravo": 2.0, "Charlie": 3.0},  # "is war" reaches into two tokens
        "chars:12-13": {"Delta": 2.0, "Echo": 2.0},
    }
    for target, expected in parts.items():
        found = await explain(desk, exchange, target)
        assert effects(found) == expected, target
        assert found.game_ids == whole.game_ids
        assert found.recipe.target == target
        assert [c for c in desk.checks(found.id) if not c.is_passed or c.is_skipped] == []
    assert len(model.asked) == asked, "zero new probes"


async def test_nor_does_the_whole_answer_after_a_part_of_it(desk: Desk, model: Speaker) -> None:
    desk.recipe = replace(desk.recipe, target="first_token")
    exchange = desk.ask(FIVE)
    first = await desk.explanation()
    assert (effects(first), first.target.label) == ({"Alpha": 1.0}, "first token")
    asked = len(model.asked)
    whole = await explain(desk, exchange, "output")
    assert effects(whole)["Charlie"] == 3.0
    assert len(model.asked) == asked
    assert whole.how["stopped"] == "measured for another target"


@pytest.mark.timeout(120)
async def test_few_masks_of_an_explained_answer_are_enough_and_a_larger_budget_asks_more(
    desk: Desk, model: Speaker
) -> None:
    """R2 of the part is below the target that is wished for, and still nothing is asked that was not wished for."""
    desk.recipe = replace(desk.recipe, budget=64)
    exchange = desk.ask(question(sentences(9)))
    await desk.explanation()
    asked = len(model.asked)
    found = await explain(desk, exchange, "first_token")
    assert (len(model.asked), found.cost.masks) == (asked, 64)
    more = await explain(desk, exchange, "first_token", budget=96)
    assert (len(model.asked), more.cost.masks) == (asked + 32, 96)
    for one in (found, more):
        assert all(check.is_passed for check in desk.checks(one.id)), desk.checks(one.id)


async def test_a_part_behind_the_scored_tokens_is_scored_for_itself(desk: Desk, model: Speaker) -> None:
    desk.recipe = replace(desk.recipe, max_scored_tokens=2)
    exchange = desk.ask(FIVE)
    whole = await desk.explanation()
    assert whole.target.is_cut
    found = await explain(desk, exchange, "chars:11-17")
    assert effects(found) == {"Delta": 2.0, "Echo": 2.0}
    assert (found.target.start, found.target.end, found.target.is_cut) == (3, 4, False)
    assert found.game_ids != whole.game_ids
    assert all(check.is_passed for check in desk.checks(found.id)), desk.checks(found.id)


async def test_a_target_that_vanished_is_a_clear_error(desk: Desk) -> None:
    exchange = desk.ask(FIVE)
    await desk.explanation()
    with pytest.raises(CannotExplain, match="does not stand in the answer"):
        spelled(desk, exchange, "quote:cold")
    with pytest.raises(CannotExplain, match="has 18 characters, so characters 10 to 400 are not in it"):
        spelled(desk, exchange, "chars:10-400")
    with pytest.raises(CannotExplain, match="has 0 tool calls"):
        spelled(desk, exchange, "tool_call:1")
    desk.queue_again(exchange, target="chars:10-400")  # as if the answer had been longer when it was asked for
    (report,) = await desk.work_off()
    assert "are not in it any more" in str(report.error)


async def test_after_erasure_a_part_still_verifies(desk: Desk) -> None:
    exchange = desk.ask(FIVE)
    await desk.explanation()
    found = await explain(desk, exchange, "chars:1-3")
    with desk.store.begin() as connection:
        exchanges.erase_content(connection, exchange, utc_now())
    checks = desk.checks(found.id)
    assert all(check.is_passed for check in checks)
    assert sum(check.is_skipped for check in checks) == 2


async def test_a_target_that_was_changed_is_seen(desk: Desk) -> None:
    exchange = desk.ask(FIVE)
    await desk.explanation()
    found = await explain(desk, exchange, "chars:1-3")
    for change in ({"start": 1, "end": 2}, {"label": "characters 4 to 6"}, {"end": 9}):
        with desk.store.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE explanations SET target = ? WHERE id = ?",
                (json.dumps({"start": 0, "end": 1, "label": "characters 1 to 3", "is_cut": False} | change), found.id),
            )
        failed = [check.name for check in desk.checks(found.id) if not check.is_passed]
        assert failed[0] == "the target is what the recipe aims at", change


# ---------------------------------------------------------------------------------------- tool calls


def calling(arguments: str) -> list[dict[str, Any]]:
    return [{"id": "call-1", "type": "function", "function": {"name": "book_table", "arguments": arguments}}]


def test_which_text_made_it_call_this_tool(store: Engine) -> None:
    """With exact token ids: name and arguments each have causes of their own, and all of it one set of probes."""
    with Speaker(CALLED, calling('{"city": "Rome","for": 2}')) as model:  # the server wrote the arguments anew
        pieces = [model.text_of([token]) for token in model.ids_of(CALLED)]
        named = next(i for i, piece in enumerate(pieces) if "book_table" in piece)
        asked_for = next(i for i, piece in enumerate(pieces) if "Rome" in piece)
        quiet = planted(-9, {})
        model.by_token = [quiet] * len(pieces)
        model.by_token[named] = planted(-9, {("Bravo",): 2.0})
        model.by_token[asked_for] = planted(-9, {("Delta",): 3.0})
        desk = Desk(model.url, store)
        exchange = desk.ask({**FIVE, "return_token_ids": True})
        whole = asyncio.run(desk.explanation())
        assert effects(whole) == {"Bravo": 2.0, "Delta": 3.0}
        asked = len(model.asked)
        for target, expected in {
            "tool_call:1:name": {"Bravo": 2.0},
            "tool_call:1:arguments": {"Delta": 3.0},
            "tool_call:1": {"Bravo": 2.0, "Delta": 3.0},
        }.items():
            found = asyncio.run(explain(desk, exchange, target))
            assert effects(found) == expected, target
            assert all(check.is_passed for check in desk.checks(found.id)), desk.checks(found.id)
        assert len(model.asked) == asked
        desk.close()


def test_without_exact_ids_it_is_said_what_would_help(store: Engine) -> None:
    with Speaker(CALLED, calling('{"city": "Rome", "for": 2}')) as model:
        desk = Desk(model.url, store)
        exchange = desk.ask(FIVE)
        desk.queue_again(exchange, target="tool_call:1:name")
        (report,) = asyncio.run(desk.work_off())
        assert "exact_token_ids" in str(report.error)
        desk.close()


def test_a_call_in_a_format_that_is_no_json_is_said_to_be_one(store: Engine) -> None:
    with Speaker('[book_table(city="Rome", for=2)]', calling('{"city": "Rome", "for": 2}')) as model:
        desk = Desk(model.url, store)
        exchange = desk.ask({**FIVE, "return_token_ids": True})
        asyncio.run(desk.work_off())
        desk.queue_again(exchange, target="tool_call:1:arguments")
        (report,) = asyncio.run(desk.work_off())
        assert "do not stand in what the model wrote as JSON" in str(report.error)
        desk.close()
