"""The sheet: the prompt complete and in order, colours only where they are earned, doubts in grey."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from spex_proxy.engine.rows import rows_of
from spex_proxy.engine.walsh import all_masks, predict
from spex_proxy.facts.evidence import Evidence
from spex_proxy.facts.exchange import Message
from spex_proxy.facts.explanation import Fidelity
from spex_proxy.study.painted import unexplained
from spex_proxy.study.sheet import Sheet, make_sheet, typical_error
from tests.unit.examples import MESSAGES, SPECTRUM, a_game, an_exchange, an_explanation


def a_sheet(**changes: object) -> Sheet:
    masks = all_masks(3)
    rows = rows_of(Evidence(masks, predict(SPECTRUM, masks), np.zeros(8, dtype=np.int64)))
    return make_sheet(an_explanation(**changes), a_game(), an_exchange(), rows)


def texts(sheet: Sheet) -> list[str]:
    return [
        "".join(s.before + "".join(p.text for p in s.pieces) + s.after for s in message.spans)
        for message in sheet.messages
    ]


def test_the_prompt_is_complete_and_nobodys_text_is_uncoloured() -> None:
    sheet = a_sheet()
    assert texts(sheet) == [message.text for message in MESSAGES]
    assert [m.role for m in sheet.messages] == ["system", "tool", "user"]
    assert sheet.messages[1].name == "search"
    assert sheet.messages[0].spans[0].segment is None
    first, second = sheet.messages[1].spans
    assert (first.segment.number, first.segment.sign, first.segment.step) == (1, "+", 6)  # type: ignore[union-attr]
    assert (second.segment.sign, second.after) == ("−", "\n")  # type: ignore[union-attr]


def test_hierarchy_is_told_unless_there_is_nothing_to_explain() -> None:
    assert a_sheet().hierarchy == "the one strong interaction stands on its parts"
    assert a_sheet().hierarchy_rates == "DSR 1.00, SCR 1.00, SHR 1.00"
    assert a_sheet(verdict="nothing_to_explain").hierarchy == ""


def test_ranked_with_signs_and_readings() -> None:
    ranked = a_sheet().ranked
    assert [s.effect for s in ranked] == ["+4.00", "+2.00", "−0.50"]
    assert ranked[0].reading.startswith("Keeping it makes this answer about 55 times likelier")


def test_a_group_comes_with_its_table_from_measurements() -> None:
    (together,) = a_sheet().together
    assert (together.numbers, together.effect, together.is_faint) == ((1, 3), "+3.00", False)
    assert together.table is not None
    assert together.table.measured == 4
    assert together.table.joint == pytest.approx(3.0)
    assert [arc.rank for arc in a_sheet().strip.arcs] == [0]


def test_without_evidence_there_is_no_table() -> None:
    sheet = make_sheet(an_explanation(), a_game(), an_exchange(), None)
    assert sheet.together[0].table is None


def test_nothing_to_explain_has_no_colours_no_ranks_and_no_arcs() -> None:
    sheet = a_sheet(verdict="nothing_to_explain")
    assert not sheet.is_coloured
    assert (sheet.ranked, sheet.together, sheet.strip.arcs) == ((), (), ())
    assert {s.segment.step for m in sheet.messages for s in m.spans if s.segment} == {0}


def test_weak_terms_are_grey_and_have_no_arc() -> None:
    fidelity = Fidelity(0.1, -0.2, 0.3, 0.0, 1.0, -2.5, -16.25, 12)
    sheet = a_sheet(fidelity=fidelity, verdict="unreliable")
    assert sheet.is_muted
    assert all(row.is_faint for row in sheet.together)
    assert sheet.strip.arcs == ()


def test_the_typical_error_is_what_the_fit_leaves_unexplained_spread_over_the_masks() -> None:
    explained = float((SPECTRUM.coefficients[1:] ** 2).sum())
    error = typical_error(an_explanation())
    assert error == pytest.approx(math.sqrt(explained * (1 - 0.987) / 0.987 / 40))
    unknown = dataclasses.replace(an_explanation().fidelity, r2=math.nan)
    assert typical_error(an_explanation(fidelity=unknown)) is None


def test_erased_content_leaves_lengths_and_effects() -> None:
    sheet = make_sheet(an_explanation(), a_game(), None, None)
    assert [m.role for m in sheet.messages] == ["tool", "user"]
    assert "21 characters" in sheet.messages[0].spans[0].pieces[0].text
    assert (sheet.quote, sheet.answer) == ("", ())
    assert [s.effect for s in sheet.ranked] == ["+4.00", "+2.00", "−0.50"]


def test_messages_without_an_explanation_are_shown_as_they_are() -> None:
    exchange = an_exchange(messages=(Message("user", "Hello"), Message("assistant", "")))
    assert [[p.text for s in m.spans for p in s.pieces] for m in unexplained(exchange)] == [["Hello"], []]
    assert unexplained(None) == ()
