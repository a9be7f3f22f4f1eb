"""Explaining makes room: a real relay counts production, and what we ask waits for it, or is ended by it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from spex_proxy.facts.load import Production
from spex_proxy.facts.rules import DEFAULT_RULE, Rule, When
from spex_proxy.facts.token_budget import TokenBudget
from spex_proxy.flows.acting import Orders
from spex_proxy.flows.rules.read import make_book
from spex_proxy.flows.work import Report
from spex_proxy.ports.gate.gate import Gate
from spex_proxy.ports.load_board import Board
from spex_proxy.ports.scorers import Scored
from spex_proxy.store import steering
from tests.story.explaining import RECIPE, Desk, question, sentences
from tests.story.raw_client import RawClient, chat_request
from tests.story.running import Proxy, relay
from tests.story.scripted_backends import BackedModel
from tests.story.scripted_model import ScriptedModel, planted, waiting
from tests.story.upstream import HANG, LAST_CHUNK, Upstream, chunk, eventually, stream_head

GAME = planted(-12, {("Bravo",): 1.5, ("Alpha", "Delta"): 4})
FIVE = question(sentences(5))
MASKS = 34


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(GAME) as server:
        yield server


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board(tmp_path / "load-board")
    yield made
    made.close()


@pytest.fixture
def production(board: Board) -> Iterator[tuple[Upstream, Proxy]]:
    """A relay that writes to the board, before an upstream whose answers the test decides."""
    with Upstream() as upstream, relay(upstream.url, capture_rate=0, board=board.slot()) as proxy:
        yield upstream, proxy


@contextmanager
def explaining(desk: Desk) -> Iterator[list[Report]]:
    """A worker, in a thread with a loop of its own; the block's end waits for its job's."""
    ends: list[Report] = []
    thread = threading.Thread(target=lambda: ends.extend(asyncio.run(desk.work_off())))
    thread.start()
    try:
        yield ends
    finally:
        thread.join(60)
        assert not thread.is_alive()


def seen(board: Board) -> tuple[int, int]:
    found = board.read()
    assert isinstance(found, Production)
    return found.in_flight, found.awaiting_first


def test_the_relay_counts_what_is_in_flight(board: Board, production: tuple[Upstream, Proxy]) -> None:
    upstream, proxy = production
    upstream.answers(stream_head(), gate := upstream.gate(), chunk(b"data: {}\n\n"), end := upstream.gate(), LAST_CHUNK)
    with RawClient(proxy.port) as client:
        client.send(chat_request(b'{"stream": true}'))
        eventually(lambda: seen(board) == (1, 1))
        client.read_head()
        assert seen(board) == (1, 1), "a head is no token"
        gate.open()
        eventually(lambda: seen(board) == (1, 0))
        end.open()
        eventually(lambda: seen(board) == (0, 0))
    with RawClient(proxy.port) as client:
        upstream.answers(HANG)
        client.send(chat_request(b"{}"))
        eventually(lambda: seen(board) == (1, 1))
        client.leave()
        eventually(lambda: seen(board) == (0, 0))


def test_nothing_is_asked_while_production_is_in_flight(
    model: ScriptedModel, store: Engine, board: Board, production: tuple[Upstream, Proxy]
) -> None:
    upstream, proxy = production
    upstream.answers(HANG)
    desk = Desk(model.url, store, gate=Gate(board.read))
    desk.ask(FIVE)
    with RawClient(proxy.port) as client:
        client.send(chat_request(b"{}"))
        eventually(lambda: seen(board) == (1, 1))
        with explaining(desk) as ends:
            eventually(lambda: any(r.progress and "waiting: 1 request" in r.progress.note for r in desk.reports))
            assert not model.asked
            client.leave()
    assert ends[0].explanation is not None
    assert len(model.asked) == MASKS
    desk.close()


def test_production_ends_what_is_being_asked_and_no_answer_is_lost(
    model: ScriptedModel, store: Engine, board: Board, production: tuple[Upstream, Proxy]
) -> None:
    """The model server sees our connection close; what was committed before is not asked again."""
    upstream, proxy = production
    upstream.answers(HANG)
    model.faults.extend([lambda reply: [reply]] * 2)
    model.faults.append(waiting(model.gate()))  # the third batch: never opened
    desk = Desk(model.url, store, gate=Gate(board.read))
    desk.ask(FIVE)
    with explaining(desk) as ends, RawClient(proxy.port) as client:
        eventually(lambda: len(model.asked) == 24)
        aborted = model.upstream.aborted
        client.send(chat_request(b"{}"))
        eventually(lambda: model.upstream.aborted == aborted + 1)
        eventually(lambda: model.upstream.live == 0)
        client.leave()
    assert ends[0].explanation is not None
    again = set(model.asked[24:]) & set(model.asked[:16])
    assert not again, "what was answered is asked once"
    assert len(model.asked) == MASKS + 8
    assert desk.gate is not None
    assert (desk.gate.counts["aborted"], model.upstream.live) == (1, 0)
    desk.close()


@pytest.mark.parametrize("lines", [0, 5])
def test_what_was_answered_before_production_came_is_kept_and_the_rest_is_counted(
    store: Engine, board: Board, production: tuple[Upstream, Proxy], lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine had read the whole batch, and had told of some masks: those are evidence, and their tokens cost."""
    upstream, proxy = production
    upstream.answers(HANG)
    heard: list[int] = []
    tell = Scored.tell

    def listening(scored: Scored, number: int, *rest: Any) -> None:
        tell(scored, number, *rest)
        heard.append(number)

    monkeypatch.setattr(Scored, "tell", listening)
    with BackedModel(GAME, backends=["engine"]) as model:
        model.hangs_after = lines
        desk = Desk(model.url, store, scorer="engine", gate=Gate(board.read))
        exchange = desk.ask(FIVE)
        with explaining(desk) as ends, RawClient(proxy.port) as client:
            eventually(lambda: len(model.asked) >= 32 and len(heard) == lines)
            client.send(chat_request(b"{}"))
            eventually(lambda: model.upstream.live == 0)
            client.leave()
        found = ends[0].explanation
        assert found is not None
        assert desk.gate is not None
        assert desk.gate.counts["aborted"] == 1
        lost = found.how["unanswered"]
        assert (lost["batches"], lost["masks"]) == (1, 32 - lines)
        assert 0 < model.prompt_tokens - found.cost.prompt_tokens <= lost["most_tokens"]
        kept = [report.progress.masks for report in desk.reports if report.progress]
        assert lines == 0 or lines in kept
        assert desk.counted("unanswered_masks") == 32 - lines
        assert desk.jobs(exchange)[0].state == "done"
        assert all(check.is_passed for check in desk.checks(found.id))
        desk.close()


def test_a_server_that_makes_room_by_itself_keeps_the_batch_and_tells_what_it_ended(
    store: Engine, board: Board, production: tuple[Upstream, Proxy]
) -> None:
    with BackedModel(GAME, backends=["engine"]) as model:
        model.yields = True
        model.interrupted_masks = {3, 7}
        desk = Desk(model.url, store, scorer="engine", gate=Gate(board.read))
        exchange = desk.ask(FIVE)
        with explaining(desk) as ends:
            pass
        found = ends[0].explanation
        assert found is not None
        assert desk.gate is not None
        assert (desk.gate.counts["asked"], desk.gate.counts["aborted"]) == (2, 0)
        lost = found.how["unanswered"]
        assert (lost["batches"], lost["masks"]) == (0, desk.counted("unanswered_masks"))
        assert lost["masks"] >= 2  # those beside which production came, and what ran with them
        assert 0 < model.prompt_tokens - found.cost.prompt_tokens <= lost["most_tokens"]
        assert (found.cost.masks, found.fidelity.r2) == (MASKS, pytest.approx(1.0))
        assert desk.jobs(exchange)[0].state == "done"
        desk.close()


def test_a_job_that_waits_can_be_cancelled(
    model: ScriptedModel, store: Engine, board: Board, production: tuple[Upstream, Proxy]
) -> None:
    upstream, proxy = production
    upstream.answers(HANG)
    desk = Desk(model.url, store, gate=Gate(board.read, longest_wait_s=0.1))
    exchange = desk.ask(FIVE)
    with RawClient(proxy.port) as client:
        client.send(chat_request(b"{}"))
        eventually(lambda: seen(board) == (1, 1))
        with explaining(desk):
            eventually(lambda: desk.jobs(exchange)[0].state == "running")
            with store.begin() as connection:
                steering.cancel(connection, desk.jobs(exchange)[0].id)
    assert desk.jobs(exchange)[0].state == "cancelled"
    assert not model.asked
    desk.close()


def test_without_a_relay_nobody_asks(model: ScriptedModel, store: Engine, board: Board) -> None:
    desk = Desk(model.url, store, gate=Gate(board.read, longest_wait_s=0.1))
    exchange = desk.ask(FIVE)
    with explaining(desk):
        eventually(lambda: any(r.progress and "no relay writes" in r.progress.note for r in desk.reports))
        with store.begin() as connection:
            steering.cancel(connection, desk.jobs(exchange)[0].id)
    assert not model.asked
    desk.close()


def test_a_budget_that_is_spent(model: ScriptedModel, store: Engine) -> None:
    """The first batch goes over it; then nothing more is asked, and the reason is shown."""
    desk = Desk(model.url, store, budget=TokenBudget(day=10))
    exchange = desk.ask(FIVE)
    with explaining(desk):
        eventually(lambda: any(r.progress and "of a budget of 10" in r.progress.note for r in desk.reports))
        with store.begin() as connection:
            steering.cancel(connection, desk.jobs(exchange)[0].id)
    assert len(model.asked) == 8
    desk.budget = replace(desk.budget, day=None)
    desk.close()


def test_a_rules_own_budget(model: ScriptedModel, store: Engine) -> None:
    """It holds for the exchanges that the rule chose, by the rules in force now; then a larger one lets them go on."""
    rule = Rule("all", When(), 1.0, 1.0, RECIPE, tokens_per_day=10)
    books = [make_book((rule,), replace(rule, name=DEFAULT_RULE))]
    desk = Desk(model.url, store, budget=TokenBudget(day=1_000_000))
    desk.orders = Orders(lambda: books[-1], desk.plugins, desk.counters, b"")
    desk.ask(FIVE)
    said = "waiting: rule all: "
    with explaining(desk) as ends:
        eventually(lambda: any(r.progress and r.progress.note.startswith(said) for r in desk.reports))
        assert len(model.asked) == 8
        books.append(make_book((replace(rule, tokens_per_day=1_000_000),), rule))
    assert ends[0].explanation is not None
    assert len(model.asked) == MASKS
    desk.close()


def test_up_waits_for_production_too(model: ScriptedModel, store: Engine, board: Board) -> None:
    """Idle: a gate that is open costs nothing but a look."""
    with relay(model.url, board=board.slot()) as proxy:
        desk = Desk(model.url, store, gate=Gate(board.read))
        desk.ask(FIVE)
        with explaining(desk) as ends:
            pass
        reply = httpx.post(f"http://127.0.0.1:{proxy.port}/v1/chat/completions", json=FIVE, trust_env=False)
    assert reply.status_code == 200
    assert ends[0].explanation is not None
    assert len(model.asked) == MASKS
    desk.close()
