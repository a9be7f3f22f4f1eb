"""Cases for review: one holder at a time, whoever races, and a history in which nothing is overwritten."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from spex_proxy.facts.errors import NotFound
from spex_proxy.facts.review import Case, Refusal
from spex_proxy.store import cases
from spex_proxy.store.cases import CaseFilters
from spex_proxy.store.connect import reading
from tests.contract.store.samples import Make


def add(conn: sa.Connection, make: Make, **options: object) -> Case:
    return cases.open_case(conn, make.saved(conn).id, **{"why": "person", "who": "ann"} | options)  # type: ignore[arg-type] # any option


def test_a_case_from_opening_to_reopening(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        case = add(conn, make, note="answers in French")
    with engine.begin() as conn:
        claimed = cases.act(conn, case.id, "claim", "ann")
        cases.act(conn, case.id, "note", "bob", note="so does the other one")
        done = cases.act(conn, case.id, "judge", "ann", label="wrong", note="the system prompt is in French")
        cases.act(conn, case.id, "reopen", "bob", note="look again")
    assert isinstance(claimed, Case)
    assert isinstance(done, Case)
    assert (done.state, done.label, done.holder, done.events) == ("done", "wrong", None, 4)
    with reading(engine) as conn:
        history = cases.history(conn, case.id)
        assert cases.load_case(conn, case.id).state == "open"
    assert [(e.number, e.who, e.act, e.label, e.note) for e in history] == [
        (0, "ann", "opened", None, "answers in French"),
        (1, "ann", "claimed", None, None),
        (2, "bob", "noted", None, "so does the other one"),
        (3, "ann", "judged", "wrong", "the system prompt is in French"),
        (4, "bob", "reopened", None, "look again"),
    ]


def test_an_exchange_is_in_a_queue_once(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        case = add(conn, make)
        again = cases.open_case(conn, case.exchange_id, why="refusal", who="rule:guard")
        other = cases.open_case(conn, case.exchange_id, why="refusal", who="rule:guard", queue="safety")
    assert again == case
    assert other.id != case.id
    with reading(engine) as conn:
        assert len(cases.history(conn, case.id)) == 1


def test_of_many_who_claim_one_case_one_gets_it(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        case = add(conn, make)

    def claim(who: str) -> Case | Refusal:
        with engine.begin() as conn:
            return cases.act(conn, case.id, "claim", who)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(claim, [f"reviewer-{i}" for i in range(16)]))
    (winner,) = [one for one in found if isinstance(one, Case)]
    refusals = [one.reason for one in found if isinstance(one, Refusal)]
    assert len(refusals) == 15
    assert all(str(winner.holder) in reason for reason in refusals)
    with reading(engine) as conn:
        assert [event.act for event in cases.history(conn, case.id)] == ["opened", "claimed"]


def test_of_many_who_take_the_next_each_gets_another(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        made = {add(conn, make).id for _ in range(12)}

    def take_next(who: str) -> Case | None:
        with engine.begin() as conn:
            return cases.claim_next(conn, who)

    with ThreadPoolExecutor(6) as pool:
        found = [case.id for case in pool.map(take_next, map(str, range(12))) if case is not None]
    assert Counter(found) == Counter(made)
    assert take_next("late") is None


def test_the_next_is_the_most_urgent_then_the_oldest_then_what_expired(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        first, second = add(conn, make, priority=2), add(conn, make, priority=2)
        urgent, elsewhere = add(conn, make, priority=1), add(conn, make, queue="safety")
        cases.act(conn, first.id, "claim", "ann", hold=timedelta(0))
    with engine.begin() as conn:
        taken = [cases.claim_next(conn, "bob") for _ in range(4)]
    assert [case.id for case in taken if case] == [urgent.id, first.id, second.id]
    assert taken[3] is None
    with reading(engine) as conn:
        assert cases.load_case(conn, elsewhere.id).state == "open"
        assert [event.act for event in cases.history(conn, first.id)] == ["opened", "claimed", "expired", "claimed"]


def test_lists_page_by_page(engine: sa.Engine, make: Make) -> None:
    with engine.begin() as conn:
        made = [add(conn, make, priority=priority) for priority in (2, 1, 2, 3, 1)]
        cases.act(conn, made[0].id, "claim", "ann")
        cases.act(conn, made[4].id, "claim", "ann")
        cases.act(conn, made[4].id, "judge", "ann", label="harmless")
    expected = [made[i].id for i in (1, 4, 0, 2, 3)]
    found, after = [], None
    with reading(engine) as conn:
        while True:
            page = cases.list_cases(conn, "default", after=after, limit=2)
            found += [case.id for case in page.cases]
            after = page.next_after
            if after is None:
                break
        assert found == expected

        def ids(filters: CaseFilters) -> list[str]:
            return [case.id for case in cases.list_cases(conn, "default", filters).cases]

        assert ids(CaseFilters(states=("open",))) == [made[i].id for i in (1, 2, 3)]
        assert ids(CaseFilters(holder="ann")) == [made[0].id]
        assert ids(CaseFilters(label="harmless")) == [made[4].id]
        assert ids(CaseFilters(exchange_id=made[3].exchange_id)) == [made[3].id]
        assert ids(CaseFilters(queue="safety")) == []
        (line,) = cases.queues(conn, "default")
    assert (line.queue, line.open, line.claimed, line.done) == ("review", 3, 1, 1)
    assert line.oldest_open == made[1].created_at


def test_what_is_not_there_is_said(engine: sa.Engine) -> None:
    with engine.begin() as conn, pytest.raises(NotFound, match="no case 'nobody'"):
        cases.act(conn, "nobody", "claim", "ann")
    with reading(engine) as conn, pytest.raises(NotFound, match="no case 'nobody'"):
        cases.load_case(conn, "nobody")
