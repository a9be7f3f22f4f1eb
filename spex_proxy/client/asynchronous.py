"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal, overload

from spex_proxy.client import calls, check_calls, flag_calls, policy, review_calls
from spex_proxy.client.async_driver import AsyncDriver
from spex_proxy.facts.query import Noun
from spex_proxy.facts.records import (
    AggregateRecord,
    CaseRecord,
    CaseStory,
    CoalitionTable,
    ComparisonRecord,
    EvidenceRecord,
    ExchangePage,
    ExchangeRecord,
    ExchangeRow,
    ExplanationPage,
    ExplanationRecord,
    ExplanationRow,
    IndexRecord,
    InteractionPage,
    InteractionRow,
    JobRecord,
    RaisedRecord,
    RetestRecord,
    ReviewRecord,
    VerificationRecord,
)


class AsyncClient(AsyncDriver):
    """Safe to share between tasks. Close it, or use it in an `async with` block."""

    def exchanges(self, *, preview: bool = False, page_size: int = 100, **filters: Any) -> AsyncIterator[ExchangeRow]:
        """All that fit, newest first, fetched page by page as you go. `filters`: fields of facts.query.Query, such
        as since, until, model, rule, user, tag, text, state, verdict, r2_min, flag, review, origin, top."""
        call = calls.listed("exchanges", ExchangePage, filters, self._project, preview=preview, limit=page_size)
        return self._each(policy.pages(call))

    async def exchange(self, any_id: str) -> ExchangeRecord:
        """One exchange with its messages and its answer."""
        return await self._get(calls.exchange(any_id, self._project))

    def explanations(self, *, page_size: int = 100, **filters: Any) -> AsyncIterator[ExplanationRow]:
        """All that fit, newest first, fetched page by page as you go. `filters`: fields of facts.query.Query."""
        call = calls.listed("explanations", ExplanationPage, filters, self._project, limit=page_size)
        return self._each(policy.pages(call))

    def interactions(self, *, page_size: int = 100, **filters: Any) -> AsyncIterator[InteractionRow]:
        """Terms of all explanations that fit, the newest explanation first. `filters`: fields of facts.query.Query."""
        call = calls.listed("interactions", InteractionPage, filters, self._project, limit=page_size)
        return self._each(policy.pages(call))

    def export(self, noun: Noun, **filters: Any) -> AsyncIterator[bytes]:
        """`exchanges`, `explanations` or `interactions` as JSON, one object a line, as the server streams them.
        Raises UpstreamError if the stream breaks off before its end: what came until then is not all."""
        return self._each(policy.lines(calls.exported(noun, filters, self._project)))

    async def indices(self, any_id: str, *, index: str = "fsii", order: int = 2, limit: int = 200) -> IndexRecord:
        """Any index, from the stored spectrum: fourier, moebius, bv, bii, sv, sii, k-sii, stii, fbii, fsii, or."""
        return await self._get(calls.indices(any_id, index, order, limit, self._project))

    async def compare(self, any_id: str, other: str) -> ComparisonRecord:
        """Two explanations side by side: which segments are the same, and what changed."""
        return await self._get(calls.compare(any_id, other, self._project))

    async def aggregates(
        self, *, document: str | None = None, depth: int = 3, by: str | None = None, **filters: Any
    ) -> AggregateRecord:
        """What the explanations of a window (`since`) say of all requests. `by`: model, rule, day or hour."""
        call = calls.aggregates(filters, self._project, document=document, depth=depth, by=by)
        return await self._get(call)

    async def explanation(self, any_id: str, *, terms: bool = False) -> ExplanationRecord:
        """The newest explanation behind any id; with `terms`, its whole spectrum."""
        return await self._get(calls.explanation(any_id, terms, self._project))

    async def evidence(self, any_id: str) -> EvidenceRecord:
        """Every mask that was asked, and what it was worth."""
        return await self._get(calls.evidence(any_id, self._project))

    async def verify(self, any_id: str) -> VerificationRecord:
        """Check an explanation against its stored evidence; takes seconds."""
        return await self._get(calls.verify(any_id, self._project))

    @overload
    async def explain(
        self, any_id: str, *, wait: Literal[False] = False, idempotency_key: str | None = None, **recipe: Any
    ) -> JobRecord: ...

    @overload
    async def explain(
        self,
        any_id: str,
        *,
        wait: Literal[True],
        on_progress: Callable[[JobRecord], None] | None = None,
        idempotency_key: str | None = None,
        **recipe: Any,
    ) -> ExplanationRecord: ...

    async def explain(
        self,
        any_id: str,
        *,
        wait: bool = False,
        on_progress: Callable[[JobRecord], None] | None = None,
        idempotency_key: str | None = None,
        **recipe: Any,
    ) -> JobRecord | ExplanationRecord:
        """Explain an exchange now. `recipe`: segmenter, budget, seed, target_r2, ... where the server's own won't do.

        Returns the job, or with `wait` the explanation. Raises CannotExplain if the job ends without one.
        """
        if not wait:
            return await self._get(calls.explain(any_id, recipe, idempotency_key, self._project))
        return await self._run(policy.explained(any_id, recipe, idempotency_key, self._project), on_progress)

    async def job(self, job_id: str) -> JobRecord:
        """One job, and how far it is."""
        return await self._get(calls.job(job_id, self._project))

    async def cancel(self, job_id: str) -> JobRecord:
        """End it for good. Raises SpexError if it has ended already."""
        return await self._get(calls.change(job_id, "cancel", self._project))

    async def pause(self, job_id: str) -> JobRecord:
        """Leave it alone until it is resumed."""
        return await self._get(calls.change(job_id, "pause", self._project))

    async def resume(self, job_id: str) -> JobRecord:
        """Back to the queue."""
        return await self._get(calls.change(job_id, "resume", self._project))

    def follow(self, job_id: str) -> AsyncIterator[JobRecord]:
        """The job at once, and again at every change, until it is over."""
        return self._each(policy.following(job_id, self._project))

    async def flags(self, any_id: str) -> tuple[RaisedRecord, ...]:
        """All flags of an exchange and of its explanations, oldest first."""
        return (await self._get(flag_calls.flags(any_id, self._project))).items

    async def flag(
        self,
        any_id: str,
        name: str,
        who: str,
        *,
        detail: str | None = None,
        score: float | None = None,
        idempotency_key: str | None = None,
    ) -> RaisedRecord:
        """Flag an exchange, as a guardrail does; rules may act upon it. Sent again, it is the same flag."""
        given = {"who": who, "name": name, "detail": detail, "score": score}
        call = flag_calls.send(any_id, "flags", given, idempotency_key, self._project)
        return await self._get(call)

    async def feedback(
        self,
        any_id: str,
        who: str,
        *,
        label: str | None = None,
        score: float | None = None,
        comment: str | None = None,
        idempotency_key: str | None = None,
    ) -> RaisedRecord:
        """Say what a user thinks of an answer: a label, a score or a comment."""
        given = {"who": who, "label": label, "score": score, "comment": comment}
        call = flag_calls.send(any_id, "feedback", given, idempotency_key, self._project)
        return await self._get(call)

    async def coalitions(self, any_id: str, segments: Sequence[int] = ()) -> CoalitionTable:
        """The 2^k table of chosen segments (from 1, at most 4): the answer's value with none, each, all of them.
        Without any, that of the strongest that act together."""
        return await self._get(check_calls.coalitions(any_id, segments, self._project))

    async def ask_coalitions(
        self, any_id: str, segments: Sequence[int], *, on_progress: Callable[[JobRecord], None] | None = None
    ) -> CoalitionTable:
        """The same, once every line is measured. Raises CannotExplain if the model can't be asked."""
        return await self._run(policy.measured(any_id, segments, self._project), on_progress)

    async def retest(
        self,
        any_id: str,
        who: str,
        *,
        segments: Sequence[int] | None = None,
        top: int | None = None,
        on_progress: Callable[[JobRecord], None] | None = None,
    ) -> RetestRecord:
        """Ask the model again without some segments, or without the `top` ones, and wait for what it says.
        Raises CannotExplain if it can't be asked."""
        given = {"who": who, "segments": None if segments is None else tuple(segments), "top": top}
        return await self._run(policy.retested(any_id, given, self._project), on_progress)

    async def retests(self, any_id: str) -> tuple[RetestRecord, ...]:
        """All re-tests of an exchange, newest first."""
        return (await self._get(check_calls.retests(any_id, self._project))).items

    async def one_retest(self, retest_id: str) -> RetestRecord:
        """One re-test, and what came of it so far."""
        return await self._get(check_calls.one_retest(retest_id, self._project))

    async def report(self, any_id: str) -> str:
        """The whole case as one HTML page that needs no other file."""
        return await self._get(check_calls.report(any_id, self._project))

    async def review(self) -> ReviewRecord:
        """The queues that have cases, and what a verdict may be."""
        return await self._get(review_calls.review(self._project))

    def cases(
        self,
        *,
        queue: str | None = None,
        state: Sequence[str] = (),
        holder: str | None = None,
        label: str | None = None,
        exchange: str | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[CaseRecord]:
        """All that fit, the most urgent first, then the oldest, fetched page by page as you go."""
        call = review_calls.cases(
            queue=queue, state=state, holder=holder, label=label, exchange=exchange, page_size=page_size,
            project=self._project,
        )  # fmt: skip
        return self._each(policy.pages(call))

    async def case(self, case_id: str) -> CaseStory:
        """One case, and all that happened to it."""
        return await self._get(review_calls.case(case_id, self._project))

    async def open_case(
        self, any_id: str, who: str, *, queue: str | None = None, note: str | None = None, priority: int | None = None
    ) -> CaseRecord:
        """Put an exchange into a queue; if it is there already, that case."""
        given = {"who": who, "queue": queue, "note": note, "priority": priority}
        return await self._get(review_calls.open_case(any_id, given, self._project))

    async def next(self, who: str, *, queue: str | None = None) -> CaseRecord:
        """Claim the most urgent case that nobody holds. Raises NotFound if there is none."""
        return await self._get(review_calls.next_case({"who": who, "queue": queue}, self._project))

    async def claim(self, case_id: str, who: str) -> CaseRecord:
        """Make a case this reviewer's for a while. Raises SpexError that says who has it."""
        return await self._get(review_calls.wish(case_id, "claim", {"who": who}, self._project))

    async def release(self, case_id: str, who: str) -> CaseRecord:
        """Give it back to the queue."""
        return await self._get(review_calls.wish(case_id, "release", {"who": who}, self._project))

    async def verdict(self, case_id: str, who: str, label: str, *, note: str | None = None) -> CaseRecord:
        """Judge a case that this reviewer has claimed, and close it."""
        given = {"who": who, "label": label, "note": note}
        return await self._get(review_calls.wish(case_id, "verdict", given, self._project))

    async def note(self, case_id: str, who: str, note: str) -> CaseRecord:
        """Add a line to its history."""
        given = {"who": who, "note": note}
        return await self._get(review_calls.wish(case_id, "note", given, self._project))

    async def reopen(self, case_id: str, who: str, *, note: str | None = None) -> CaseRecord:
        """A closed case goes back to its queue."""
        given = {"who": who, "note": note}
        return await self._get(review_calls.wish(case_id, "reopen", given, self._project))
