"""What is sent when, and what is made of the answers: generators that yield steps and do no I/O.

A driver performs each step and sends back what came of it:

    Call   one request                    -> Reply
    Open   one request, answer streamed   -> Reply (its body only if it is an error)
    More   of the stream that is open     -> bytes, empty at its end; or the UpstreamError that broke it off
    Pause  wait                           -> None
    Tell   hand an item to the caller     -> None
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from spex_proxy.client import check_calls
from spex_proxy.client.calls import Call, events, explain, explanation
from spex_proxy.client.reading import EventDecoder, Reply, fault_of, read
from spex_proxy.facts.errors import BadReply, CannotExplain, SpexError, UpstreamError
from spex_proxy.facts.records import CoalitionTable, ExplanationRecord, JobRecord, RetestRecord

T = TypeVar("T")

TRIES = 4
"""How often a request is sent before its failure is the caller's: about 4 s."""
PAUSE_S = 0.5
"""Before the second try; then twice as long each time. The server's Retry-After counts more."""
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Open:
    call: Call[Any]


@dataclass(frozen=True, slots=True)
class More:
    pass


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    item: Any


Step = Call[Any] | Open | More | Pause | Tell
Steps = Generator[Step, Any, T]
Row = TypeVar("Row", covariant=True)


class Page(Protocol[Row]):
    """ExchangePage and ExplanationPage."""

    @property
    def items(self) -> tuple[Row, ...]: ...
    @property
    def next_cursor(self) -> str | None: ...


def answer(call: Call[T]) -> Steps[T]:
    """The answer to one request; sent again while the server is busy or can't be reached."""
    for tried in range(1, TRIES + 1):
        reply: Reply = yield call
        fault = fault_of(reply, call)
        if fault is None:
            return read(call.kind, reply.body, f"{call.method} {call.path}")
        if not call.may_repeat or not _may_pass(fault) or tried == TRIES:
            raise fault
        yield _pause(tried, reply)
    raise AssertionError("unreachable: the loop returns or raises")


def pages(call: Call[Any]) -> Steps[None]:
    """Tell every row of every page."""
    while True:
        page: Page[Any] = yield from answer(call)
        for row in page.items:
            yield Tell(row)
        if page.next_cursor is None:
            return
        call = call.with_param("cursor", page.next_cursor)


def lines(call: Call[Any]) -> Steps[None]:
    """Tell each line of an answer that is streamed, without its end. Raises UpstreamError if the answer breaks off,
    be it between two lines."""
    reply: Reply = yield Open(call)
    fault = fault_of(reply, call)
    if fault is not None:
        raise fault
    rest, asked = b"", f"{call.method} {call.path}"
    while chunk := (yield from _more(asked)):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield Tell(line)
    if rest:
        raise UpstreamError(f"{asked}: the answer broke off in the middle of a line")


def following(job_id: str, project: str | None) -> Steps[JobRecord]:
    """Tell each change of a job until it is over. A stream that breaks is opened again."""
    call, failed = events(job_id, project), 0
    while True:
        reply: Reply = yield Open(call)
        fault = fault_of(reply, call)
        if fault is None:
            decoder = EventDecoder()
            fault = UpstreamError(f"the events of job {job_id} broke off")
            while isinstance(chunk := (yield More()), bytes) and chunk:
                failed = 0
                for name, data in decoder.feed(chunk):
                    job = read(JobRecord, data, call.path)
                    yield Tell(job)
                    if name == "end":
                        return job
        failed += 1
        if not _may_pass(fault) or failed == TRIES:
            raise fault
        yield _pause(failed, reply)


def explained(any_id: str, wish: dict[str, Any], key: str | None, project: str | None) -> Steps[ExplanationRecord]:
    """Ask, tell the job's progress, and give the explanation. Raises CannotExplain if the job ends without one."""
    asked = yield from answer(explain(any_id, wish, key, project))
    yield Tell(asked)
    job = asked if asked.is_over else (yield from following(asked.id, project))
    if job.state != "done":
        raise CannotExplain(f"job {job.id} ended as {job.state}: {job.reason or 'no reason was given'}")
    if job.explanation_id is None:
        raise BadReply(f"job {job.id} is done, but names no explanation")
    return (yield from answer(explanation(job.explanation_id, False, project)))


def retested(any_id: str, given: Mapping[str, Any], project: str | None) -> Steps[RetestRecord]:
    """Ask again without some segments, tell the job's progress, and give what came of it. Raises CannotExplain if
    the job ends without an answer."""
    asked = yield from answer(check_calls.retest(any_id, given, project))
    job = yield from following(asked.job_id, project)
    if job.state != "done":
        raise CannotExplain(f"re-test {asked.id} ended as {job.state}: {job.reason or 'no reason was given'}")
    return (yield from answer(check_calls.one_retest(asked.id, project)))


def measured(any_id: str, segments: Sequence[int], project: str | None) -> Steps[CoalitionTable]:
    """Have the missing lines of a table measured, tell the job's progress, and give the table. Raises CannotExplain
    if the job ends without them."""
    asked = yield from answer(check_calls.ask_coalitions(any_id, segments, project))
    if asked.measured < len(asked.lines) and asked.job is not None:
        job = yield from following(asked.job.id, project)
        if job.state != "done":
            raise CannotExplain(f"job {job.id} ended as {job.state}: {job.reason or 'no reason was given'}")
    return (yield from answer(check_calls.coalitions(any_id, segments, project)))


def _more(asked: str) -> Steps[bytes]:
    """The next bytes of the stream that is open, none at its end. Raises UpstreamError if it breaks off before."""
    chunk: bytes | UpstreamError = yield More()
    if isinstance(chunk, UpstreamError):
        raise UpstreamError(f"{asked}: {chunk}") from chunk
    return chunk


def _may_pass(fault: SpexError) -> bool:
    return isinstance(fault, UpstreamError)


def _pause(tried: int, reply: Reply) -> Pause:
    return Pause(min(reply.retry_after_s or PAUSE_S * 2 ** (tried - 1), LONGEST_PAUSE_S))
