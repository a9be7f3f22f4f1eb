"""The rules of review: who may do what with a case, and that its history only grows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
from hypothesis import given

from spex_proxy.facts.review import Case, Refusal, Step, Wish, opened, take

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOLD = timedelta(minutes=15)


def fresh() -> Case:
    return opened(Case("c1", "default", "review", "x1", None, "person", 2, "open", NOW), "rule:guard").case


def after(case: Case, wish: Wish, who: str, minutes: float = 0, label: str | None = None) -> Case:
    step = take(case, wish, who, NOW + timedelta(minutes=minutes), hold=HOLD, label=label)
    assert isinstance(step, Step), step
    return step.case


def refused(case: Case, wish: Wish, who: str, minutes: float = 0) -> str:
    found = take(case, wish, who, NOW + timedelta(minutes=minutes), hold=HOLD)
    assert isinstance(found, Refusal)
    return found.reason


def test_a_claimed_case_is_one_persons():
    case = after(fresh(), "claim", "ann")
    assert (case.state, case.holder, case.held_until) == ("claimed", "ann", NOW + HOLD)
    assert "ann's until 12:15:00 UTC" in refused(case, "claim", "bob", 14)
    assert "not bob's" in refused(case, "judge", "bob")
    assert refused(case, "release", "bob")


def test_an_expired_claim_goes_to_whoever_asks_and_is_remembered():
    step = take(after(fresh(), "claim", "ann"), "claim", "bob", NOW + HOLD, hold=HOLD)
    assert isinstance(step, Step)
    assert [(event.who, event.act) for event in step.events] == [("ann", "expired"), ("bob", "claimed")]
    assert step.case.holder == "bob"


def test_an_expired_claim_that_nobody_took_still_judges():
    case = after(after(fresh(), "claim", "ann"), "judge", "ann", 60, label="wrong")
    assert (case.state, case.label, case.holder, case.closed_at) == (
        "done", "wrong", None, NOW + timedelta(hours=1)
    )  # fmt: skip


def test_claiming_again_holds_longer_and_leaves_no_line():
    step = take(after(fresh(), "claim", "ann"), "claim", "ann", NOW + timedelta(minutes=10), hold=HOLD)
    assert isinstance(step, Step)
    assert step.events == ()
    assert step.case.held_until == NOW + timedelta(minutes=25)


def test_a_closed_case_says_its_verdict_and_can_be_reopened():
    done = after(after(fresh(), "claim", "ann"), "judge", "ann", label="unsafe")
    assert "closed (unsafe); reopen it first" in refused(done, "claim", "bob")
    again = after(done, "reopen", "bob")
    assert (again.state, again.label, again.closed_at) == ("open", None, None)
    assert "only a closed case" in refused(again, "reopen", "bob")


def test_a_case_that_is_nobodys_is_claimed_first():
    assert "claim it first" in refused(fresh(), "judge", "ann")


WISHES = st.lists(
    st.tuples(
        st.sampled_from(["claim", "release", "judge", "note", "reopen"]),
        st.sampled_from(["ann", "bob"]),
        st.floats(0, 40),
    ),
    max_size=30,
)


@given(WISHES)
def test_whatever_people_wish_history_is_numbered_without_gaps_and_states_make_sense(wishes):
    case, history, minutes = fresh(), 1, 0.0
    for wish, who, later in wishes:
        minutes += later
        found = take(case, wish, who, NOW + timedelta(minutes=minutes), hold=HOLD, label="wrong")
        if isinstance(found, Refusal):
            assert found.reason
            continue
        assert [event.number for event in found.events] == list(range(history, history + len(found.events)))
        history += len(found.events)
        case = found.case
        assert case.events == history
        assert (case.state == "claimed") == (case.holder is not None) == (case.held_until is not None)
        assert (case.state == "done") == (case.label is not None) == (case.closed_at is not None)
