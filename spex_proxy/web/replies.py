"""Facts and rows of the store -> records of the API. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

from spex_proxy.facts import records
from spex_proxy.facts.exchange import Exchange
from spex_proxy.facts.explanation import Check, Explanation, Flag
from spex_proxy.facts.review import Case, CaseEvent
from spex_proxy.facts.spectrum import Spectrum
from spex_proxy.store.browse import ExchangeStory, Story
from spex_proxy.store.browse_explanations import ExplanationLine, Measured
from spex_proxy.store.browse_jobs import JobProgress
from spex_proxy.store.cases import QueueLine
from spex_proxy.store.codec import finite
from spex_proxy.store.flags import Raised
from spex_proxy.store.listing import Row
from spex_proxy.store.outbox import Job, Priority
from spex_proxy.store.retests import RetestStory
from spex_proxy.study.again import sentence_of
from spex_proxy.study.coalitions import Table
from spex_proxy.study.view import View, make_view
from spex_proxy.web.errors import printable

PREVIEW_CHARS = 60


def clean(value: Any) -> Any:
    """Any value as JSON allows it: no number that is not finite, no text that UTF-8 can't hold."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(clean(item) for item in value)
    return value


def fill(kind: type[Any], *sources: Any, **fields: Any) -> Any:
    """A record from the attributes of `sources` that have its fields' names, and from `fields`."""
    for field in dataclasses.fields(kind):
        for source in sources:
            if field.name not in fields and hasattr(source, field.name):
                fields[field.name] = getattr(source, field.name)
    return kind(**{name: clean(value) for name, value in fields.items()})


def exchange_row(row: Row, project: str, *, preview: bool) -> records.ExchangeRow:
    job = records.JobBrief(row.job_id, str(row.job_state), row.reason) if row.job_id else None
    shown = row.answer[:PREVIEW_CHARS] if preview and not row.is_erased else None
    made = fill(records.ExchangeRow, row, id=row.exchange_id, project=project, job=job, preview=shown)
    return cast(records.ExchangeRow, made)


def exchange_record(story: ExchangeStory, project: str) -> records.ExchangeRecord:
    exchange = story.exchange
    made = fill(
        records.ExchangeRecord,
        story,
        row=exchange_row(story.row, project, preview=True),
        erased=exchange is None,
        messages=_messages(exchange),
        output_text=exchange.output_text if exchange else None,
        jobs=tuple(_brief(job) for job in story.jobs),
    )
    return cast(records.ExchangeRecord, made)


def _messages(exchange: Exchange | None) -> tuple[records.MessageRecord, ...] | None:
    return tuple(fill(records.MessageRecord, message) for message in exchange.messages) if exchange else None


def _brief(job: Job) -> records.JobBrief:
    return cast(records.JobBrief, fill(records.JobBrief, job))


def _flags(flags: Sequence[Flag]) -> tuple[records.FlagRecord, ...]:
    return tuple(fill(records.FlagRecord, flag) for flag in flags)


def raised_record(raised: Raised) -> records.RaisedRecord:
    return cast(records.RaisedRecord, fill(records.RaisedRecord, raised, raised.flag))


def explanation_row(line: ExplanationLine) -> records.ExplanationRow:
    made = fill(
        records.ExplanationRow, line, n_segments=line.n_players, masks=line.cost_masks, flags=_flags(line.flags)
    )
    return cast(records.ExplanationRow, made)


def explanation_record(story: Story, *, terms: bool) -> records.ExplanationRecord:
    explanation, view = story.explanation, make_view(story.explanation, story.game, story.exchange)
    made = fill(
        records.ExplanationRecord,
        explanation,
        fidelity=fill(records.FidelityRecord, explanation.fidelity),
        hierarchy=fill(records.HierarchyRecord, view.hierarchy),
        cost=fill(records.CostRecord, explanation.cost),
        target=fill(records.TargetRecord, explanation.target),
        flags=_flags(explanation.flags),
        erased=story.exchange is None,
        segments=_segments(story, view),
        interactions=_interactions(explanation, view),
        recipe=explanation.recipe.to_json(),
        recipe_digest=explanation.recipe.digest(),
        n_terms=len(explanation.spectrum),
        terms=_terms(explanation.spectrum) if terms else None,
    )
    return cast(records.ExplanationRecord, made)


def _segments(story: Story, view: View) -> tuple[records.SegmentRecord, ...]:
    erased = {"text": None} if story.exchange is None else {}
    pairs = zip(view.segments, story.game.players.segments, strict=True)
    return tuple(fill(records.SegmentRecord, shown, stored, **erased) for shown, stored in pairs)


def _interactions(explanation: Explanation, view: View) -> tuple[records.InteractionRecord, ...]:
    stored = [i for i in explanation.interactions if i.order >= 2]
    pairs = zip(view.interactions, stored, strict=True)
    return tuple(fill(records.InteractionRecord, shown, i, segments=shown.numbers) for shown, i in pairs)


def _terms(spectrum: Spectrum) -> tuple[records.TermRecord, ...]:
    errors = [None] * len(spectrum) if spectrum.standard_errors is None else spectrum.standard_errors.tolist()
    rows = zip(spectrum.players(), spectrum.coefficients.tolist(), errors, strict=True)
    return tuple(
        records.TermRecord(tuple(player + 1 for player in players), fourier, None if error is None else finite(error))
        for players, fourier, error in rows
    )


def evidence_record(explanation_id: str, games: Sequence[Measured]) -> records.EvidenceRecord:
    return records.EvidenceRecord(explanation_id, tuple(_game(measured) for measured in games))


def _game(measured: Measured) -> records.GameEvidence:
    game, blocks = measured.game, measured.blocks
    made = fill(
        records.GameEvidence,
        game,
        game_id=game.id,
        segmenter=game.players.method,
        scorer=dataclasses.asdict(game.scorer),
        n_segments=game.n_players,
        masks=tuple("".join("1" if kept else "0" for kept in mask) for block in blocks for mask in block.masks),
        values=tuple(value for block in blocks for value in block.values.tolist()),
        replicates=tuple(number for block in blocks for number in block.replicates.tolist()),
        blocks=tuple(block.number for block in blocks for _ in range(len(block.values))),
    )
    return cast(records.GameEvidence, made)


def verification_record(explanation_id: str, checks: Sequence[Check]) -> records.VerificationRecord:
    shown = tuple(fill(records.CheckRecord, c, passed=c.is_passed, skipped=c.is_skipped) for c in checks)
    return records.VerificationRecord(explanation_id, all(check.is_passed for check in checks), shown)


def job_record(progress: JobProgress) -> records.JobRecord:
    job = progress.job
    made = fill(
        records.JobRecord,
        progress,
        job,
        priority=Priority(job.priority).name.lower(),
        budget=job.recipe_json.get("budget", 0) if job.kind == "explain" else 0,
        recipe=dict(job.recipe_json),
    )
    return cast(records.JobRecord, made)


def case_record(case: Case) -> records.CaseRecord:
    return cast(records.CaseRecord, fill(records.CaseRecord, case))


def case_story(case: Case, history: Sequence[CaseEvent]) -> records.CaseStory:
    return records.CaseStory(case_record(case), tuple(fill(records.CaseEventRecord, event) for event in history))


def coalition_table(explanation_id: str, table: Table, job: Job | None) -> records.CoalitionTable:
    numbers = tuple(player + 1 for player in table.players)
    lines = tuple(
        fill(
            records.CoalitionRecord,
            line,
            kept=tuple(number for number, is_kept in zip(numbers, line.kept, strict=True) if is_kept),
            measured=line.is_measured,
        )
        for line in table.lines
    )
    made = fill(
        records.CoalitionTable,
        table,
        explanation_id=explanation_id,
        segments=numbers,
        lines=lines,
        job=_brief(job) if job else None,
    )
    return cast(records.CoalitionTable, made)


def retest_record(story: RetestStory) -> records.RetestRecord:
    retest, outcome, answers = story.retest, story.retest.outcome, story.answers
    numbers = tuple(player + 1 for player in retest.players)
    made = fill(
        records.RetestRecord,
        story,
        retest,
        segments=numbers,
        finding=outcome.finding if outcome else None,
        gone=outcome.is_gone if outcome else None,
        reproduced=outcome.is_reproduced if outcome else None,
        overlap=outcome.overlap if outcome else None,
        control_overlap=outcome.control_overlap if outcome else None,
        flags=tuple(fill(records.FoundAgainRecord, flag) for flag in outcome.flags) if outcome else (),
        summary=sentence_of(outcome, numbers) if outcome else "",
        control=answers.control.text if answers else None,
        removed=answers.removed.text if answers else None,
    )
    return cast(records.RetestRecord, made)


def review_record(lines: Sequence[QueueLine], labels: tuple[str, ...]) -> records.ReviewRecord:
    return records.ReviewRecord(tuple(fill(records.QueueRecord, line) for line in lines), labels)
