"""The whole case of one exchange, laid out for one page: what a reviewer reads, and what is mailed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from spex_proxy.facts.retest import original_text
from spex_proxy.facts.review import Case, CaseEvent
from spex_proxy.store import browse, cases, games, retests
from spex_proxy.store.games import BlockSeal
from spex_proxy.study import words
from spex_proxy.study.again import RetestSheet, make_retest_sheet
from spex_proxy.study.sheet import Sheet
from spex_proxy.study.stored import load_sheet
from spex_proxy.study.text import label

MOST_CASES = 20
"""An exchange is in a queue once, and nobody has more queues than that."""


@dataclass(frozen=True, slots=True)
class CaseSheet:
    """A case and its history."""

    case: Case
    history: tuple[CaseEvent, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything of one exchange."""

    exchange_id: str
    plain: tuple[str, ...]
    """The case in plain language, sentence by sentence."""
    sheet: Sheet
    damage: str
    """What is wrong with the stored evidence; empty if nothing is."""
    retests: tuple[RetestSheet, ...]
    """Newest first."""
    cases: tuple[CaseSheet, ...]
    seals: tuple[BlockSeal, ...]
    """Of all evidence of the explanation's game."""


def load_report(conn: sa.Connection, any_id: str, project: str) -> Report:
    """Raises NotFound, also for an exchange that is not explained."""
    told = browse.story(conn, any_id, project)
    sheet, damage = load_sheet(conn, told.explanation.id, project)
    exchange_id = told.explanation.exchange_id or ""
    again = load_retests(conn, sheet, project)
    found = load_cases(conn, exchange_id, project) if exchange_id else ()
    return Report(
        exchange_id=exchange_id or told.explanation.id,
        plain=plain_words(sheet, again, found),
        sheet=sheet,
        damage=damage,
        retests=again,
        cases=found,
        seals=games.block_seals(conn, told.game.id, project=project),
    )


def load_retests(conn: sa.Connection, sheet: Sheet, project: str) -> tuple[RetestSheet, ...]:
    """Those of the explanation that is shown, newest first: segments of another one have other numbers."""
    exchange_id = sheet.explanation.exchange_id
    if exchange_id is None:
        return ()
    original = original_text(sheet.exchange) if sheet.exchange else ""
    return tuple(
        make_retest_sheet(one, sheet.game, sheet.exchange, original)
        for one in retests.stories(conn, exchange_id, project=project)
        if one.retest.explanation_id == sheet.explanation.id
    )


def load_cases(conn: sa.Connection, exchange_id: str, project: str) -> tuple[CaseSheet, ...]:
    """All cases of an exchange, with their histories."""
    page = cases.list_cases(conn, project, cases.CaseFilters(exchange_id=exchange_id), limit=MOST_CASES)
    return tuple(CaseSheet(case, cases.history(conn, case.id, project=project)) for case in page.cases)


def plain_words(sheet: Sheet, again: Sequence[RetestSheet], found: Sequence[CaseSheet]) -> tuple[str, ...]:
    """The case for somebody who has never seen one. Says no more than what the figures say."""
    return tuple(
        part for part in (_trust(sheet), _cause(sheet), _together(sheet), _again(again), _judged(found)) if part
    )


def _trust(sheet: Sheet) -> str:
    explanation = sheet.explanation
    if explanation.verdict == "nothing_to_explain":
        return "No part of the prompt makes a difference to this answer that stands out of the model’s own noise."
    masks = f"{explanation.cost.masks:,}"
    if explanation.verdict == "unreliable":
        return (
            f"The model was asked {masks} times with parts of the prompt left out, but what it did could not be "
            "predicted well enough: do not draw conclusions from what follows."
        )
    return (
        f"The model was asked {masks} times how likely it finds this answer with parts of the prompt left out. "
        f"What follows predicts {max(0.0, explanation.fidelity.r2):.0%} of the differences, tested on masks that it "
        "was not fitted to."
    )


def _cause(sheet: Sheet) -> str:
    strong = [segment for segment in sheet.ranked if segment.step and not segment.is_faint]
    if not strong or sheet.is_muted:
        return ""
    first = strong[0]
    where = first.provenance.replace(":", " ")
    moved = "likelier" if first.step > 0 else "less likely"
    quoted = label(first.label, 80)
    said = f"The strongest single part is segment {first.number} ({where}): “{quoted}” makes the answer {moved}."
    if len(strong) > 1:
        others = ", ".join(str(segment.number) for segment in strong[1:4])
        said += f" Next {'come segments' if len(strong) > 2 else 'comes segment'} {others}."
    return said


def _together(sheet: Sheet) -> str:
    sure = [row for row in sheet.together if not row.is_faint]
    return sure[0].sentence if sure and not sheet.is_muted else ""


def _again(again: Sequence[RetestSheet]) -> str:
    done = next((one for one in again if one.sentence), None)
    return (
        f"The model was asked again. {done.sentence}" if done else "The model was not asked again without these parts."
    )


def _judged(found: Sequence[CaseSheet]) -> str:
    said = []
    for one in found:
        closing = next((event for event in reversed(one.history) if event.act == "judged"), None)
        if one.case.state == "done" and closing is not None:
            said.append(f"{closing.who} judged it “{closing.label}” on {words.moment(closing.at)}.")
    return " ".join(said) or ("No reviewer has judged it yet." if found else "")
