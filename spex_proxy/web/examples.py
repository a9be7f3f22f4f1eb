"""One example of each answer, for the OpenAPI document. Built from the records, so none can go stale."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from spex_proxy.facts import records
from spex_proxy.facts.recipe import Recipe
from spex_proxy.store.listing import encode_cursor
from spex_proxy.web.doors import CURSOR_EXAMPLE
from spex_proxy.web.events import event, one_line

_WHEN = datetime(2026, 11, 22, 17, 0, 7, 773018, tzinfo=UTC)
_EXCHANGE_ID = "01a20433-68dc-7fe9-b901-53f5e246a0ef"
_EXPLANATION_ID = "d34e314bf44f4828b7085e38719d8830"
_JOB_ID = "0e7c0677-3e8b-4357-a620-da254f7ba011"
_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
_RECIPE = Recipe(segmenter="auto", budget=192, plugins={"segmenter:auto": "spex-proxy 0.1.0"})


def _json(value: Any) -> Any:
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def answer(value: Any, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": _json(value)}}}


_BRIEF = records.JobBrief(_JOB_ID, "done", None)
_ROW = records.ExchangeRow(
    id=_EXCHANGE_ID,
    project="default",
    received_at=_WHEN,
    kind="chat",
    model="smollm2",
    upstream_id="chatcmpl-9f6dfe44d0494a11",
    trace_id=_TRACE_ID,
    streamed=True,
    duration_s=1.42,
    prompt_tokens=118,
    output_tokens=24,
    finish_reason="stop",
    state="reliable",
    explanation_id=_EXPLANATION_ID,
    r2=0.97,
    job=_BRIEF,
    preview=None,
)
_EXCHANGE = records.ExchangeRecord(
    row=_ROW,
    capture_probability=1.0,
    explain_probability=0.01,
    explain_why="drawn",
    erased=False,
    messages=(records.MessageRecord("user", None, "Paris is in France. Where is Paris?"),),
    output_text="Paris is in France.",
    explanation_ids=(_EXPLANATION_ID,),
    jobs=(_BRIEF,),
)
_FLAG = records.FlagRecord("output_cut", "only the first 128 tokens of the answer are explained")
_LINE = records.ExplanationRow(
    id=_EXPLANATION_ID,
    project="default",
    exchange_id=_EXCHANGE_ID,
    created_at=_WHEN,
    method="stack",
    verdict="reliable",
    verdict_reason="out-of-fold R2 is 0.97",
    r2=0.97,
    r2_low=0.96,
    r2_high=0.98,
    n_segments=2,
    n_terms=4,
    masks=7,
    flags=(_FLAG,),
)
_EXPLANATION = records.ExplanationRecord(
    id=_EXPLANATION_ID,
    project="default",
    exchange_id=_EXCHANGE_ID,
    created_at=_WHEN,
    verdict="reliable",
    verdict_reason="out-of-fold R2 is 0.97",
    fidelity=records.FidelityRecord(0.97, 0.96, 0.98, 0.01, 0.999, -3.1, -30.2, 4),
    hierarchy=records.HierarchyRecord(1.0, 1.0, 1.0, terms=4, interactions=1, standing=1.0),
    cost=records.CostRecord(7, 826, 402, 1.9),
    flags=(_FLAG,),
    target=records.TargetRecord(0, 128, "whole output", is_cut=True),
    erased=False,
    segments=(
        records.SegmentRecord(1, "Paris is in France.", 0, "user", "user", 0, 19, 4, 9, 21.4, 1.0),
        records.SegmentRecord(2, " Where is Paris?", 0, "user", "user", 19, 35, 9, 13, 5.7, 0.27),
    ),
    interactions=(records.InteractionRecord((1, 2), 3.2, 0.8, 3.2, 0.02, "more than one by one"),),
    recipe=_RECIPE.to_json(),
    recipe_digest=_RECIPE.digest(),
    game_ids=("6e04f751b8b24afc81c41aad0f3899ad",),
    n_terms=4,
    terms=None,
    trace_id=_TRACE_ID,
    span_id="b7ad6b7169203331",
)
_EVIDENCE = records.EvidenceRecord(
    _EXPLANATION_ID,
    (
        records.GameEvidence(
            game_id="6e04f751b8b24afc81c41aad0f3899ad",
            digest="hmac-sha256:9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab",
            segmenter="auto",
            masker="delete",
            value="sum_logprob",
            scorer={"name": "completions", "model": "smollm2", "server": "vllm 0.32.0"},
            n_segments=2,
            masks=("11", "10", "01", "00"),
            values=(-3.1, -8.8, -24.5, -30.2),
            replicates=(0, 0, 0, 0),
            blocks=(0, 0, 0, 0),
        ),
    ),
)
_CHECK = records.CheckRecord("evidence blocks are what their digests say", True, False, "7 blocks")
_VERIFICATION = records.VerificationRecord(_EXPLANATION_ID, True, (_CHECK,))
_JOB = records.JobRecord(
    id=_JOB_ID,
    project="default",
    exchange_id=_EXCHANGE_ID,
    state="running",
    kind="explain",
    why="asked",
    priority="asked",
    attempts=1,
    reason=None,
    position=None,
    masks=96,
    budget=192,
    r2=None,
    explanation_id=None,
    recipe=_RECIPE.to_json(),
    created_at=_WHEN,
    started_at=_WHEN,
    finished_at=None,
)

_RAISED = records.RaisedRecord(
    id="0d2f9c1e-3a47-5c1b-9f0e-8a1b2c3d4e5f",
    exchange_id=_EXCHANGE_ID,
    explanation_id=None,
    name="feedback:bad",
    detail="it invented a source",
    score=None,
    flagger="feedback",
    version="",
    who="ann",
    raised_at=_WHEN,
)
_CASE = records.CaseRecord(
    id="7c5b6a1f0b6e4a1c9d0f2a3b4c5d6e7f",
    project="default",
    queue="review",
    exchange_id=_EXCHANGE_ID,
    explanation_id=_EXPLANATION_ID,
    why="person",
    priority=2,
    state="claimed",
    created_at=_WHEN,
    holder="ann",
    held_until=_WHEN,
    label=None,
    closed_at=None,
)
_EVENT = records.CaseEventRecord(0, _WHEN, "ann", "opened", None, "the answer obeys the web page")
CASE_CURSOR = encode_cursor(_WHEN, f"2 {_CASE.id}")

FLAG = answer(_RAISED, "The flag as it stands.")
FLAGS = answer(records.RaisedList((_RAISED,)), "The flags.")
EXCHANGE_PAGE = answer(records.ExchangePage((_ROW,), CURSOR_EXAMPLE), "One page.")
EXCHANGE = answer(_EXCHANGE, "The exchange.")
EXPLANATION_PAGE = answer(records.ExplanationPage((_LINE,), None), "One page.")
EXPLANATION = answer(_EXPLANATION, "The explanation.")
EVIDENCE = answer(_EVIDENCE, "The evidence.")
VERIFICATION = answer(_VERIFICATION, "What was found; `passed` is the sum of it.")
JOB = answer(_JOB, "The job.")
REVIEW = answer(
    records.ReviewRecord((records.QueueRecord("review", 3, 1, 12, _WHEN),), ("harmless", "wrong")), "The queues."
)
CASE = answer(_CASE, "The case as it is now.")
CASE_PAGE = answer(records.CasePage((_CASE,), CASE_CURSOR), "One page.")
CASE_STORY = answer(records.CaseStory(_CASE, (_EVENT,)), "The case and its history.")
_LINES = (
    records.CoalitionRecord((), -24.1, True, -29.9, 0.3, 12),
    records.CoalitionRecord((1,), -9.0, True, -12.2, 0.4, 11),
    records.CoalitionRecord((2,), -20.2, True, -24.4, 0.3, 13),
    records.CoalitionRecord((1, 2), -3.1, True, -4.0, 0.2, 12),
)
_TABLE = records.CoalitionTable(_EXPLANATION_ID, (1, 2), _LINES, 4, 2.0, 2.7, 0.6, _BRIEF)
_RETEST = records.RetestRecord(
    id="5f0a8c0e2f6f4b1e9f4f0c3f6a1d2b3c",
    project="default",
    exchange_id=_EXCHANGE_ID,
    explanation_id=_EXPLANATION_ID,
    job_id=_JOB_ID,
    segments=(4,),
    who="ann",
    created_at=_WHEN,
    answered_at=_WHEN,
    state="done",
    reason=None,
    finding="changed",
    gone=True,
    reproduced=True,
    overlap=0.12,
    control_overlap=1.0,
    flags=(records.FoundAgainRecord("refusal", control=True, removed=False),),
    summary="Without segment 4 the model answers otherwise: 12% of the words are the same. "
    "What was flagged (refusal) is gone.",
    control="Your refund is approved.",
    removed="The writer's parcel has not arrived.",
)
COALITIONS = answer(_TABLE, "The table.")
RETEST = answer(_RETEST, "The re-test as it is now.")
RETESTS = answer(records.RetestList((_RETEST,)), "All of them.")
EVENTS = event("progress", one_line(_json(_JOB))).decode()

WISHES = {
    "nothing": {"summary": "As the server is set", "value": {}},
    "finer": {"summary": "Single words, more masks", "value": {"segmenter": "word", "budget": 512}},
    "why this word": {"summary": "A part of the answer", "value": {"target": {"kind": "quote", "text": "Paris"}}},
    "again": {"summary": "The same with other masks", "value": {"seed": 1}},
}
