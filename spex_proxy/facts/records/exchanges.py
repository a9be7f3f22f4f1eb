"""Exchanges in lists, and one by one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spex_proxy.facts.records.documented import documented


@documented
@dataclass(frozen=True, slots=True)
class JobBrief:
    """A job, in a list."""

    id: str
    state: str
    """`queued`, `running`, `done`, `failed`, `cancelled` or `paused`."""
    reason: str | None
    """Why it failed, or why it waits; of the last attempt."""


@documented
@dataclass(frozen=True, slots=True)
class ExchangeRow:
    """One exchange in a list: a production request with its answer, and what became of it."""

    id: str
    """Our id, a UUIDv7: sorts by time."""
    project: str
    received_at: datetime
    kind: str
    """`chat` or `completion`."""
    model: str
    upstream_id: str | None
    """vLLM's response id, `chatcmpl-...`."""
    trace_id: str | None
    """Of the request's span, 32 hex digits."""
    streamed: bool
    duration_s: float
    prompt_tokens: int | None
    output_tokens: int | None
    finish_reason: str | None
    state: str
    """`captured`, the verdict of the newest explanation, or else the state of the newest job."""
    explanation_id: str | None
    """The newest explanation, if there is one."""
    r2: float | None
    """Out-of-fold R2 of that explanation."""
    job: JobBrief | None
    """The newest job."""
    preview: str | None
    """The answer's first 60 characters, if asked for with `preview=true` and not erased."""


@documented
@dataclass(frozen=True, slots=True)
class MessageRecord:
    """One message of the prompt."""

    role: str
    name: str | None
    text: str


@documented
@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """One exchange with its content."""

    row: ExchangeRow
    capture_probability: float
    """Probability with which this request was captured."""
    explain_probability: float
    """Probability with which it was chosen to be explained."""
    explain_why: str
    """Why it was chosen, or why not."""
    erased: bool
    """True if the content was destroyed: `messages` and `output_text` are null then."""
    messages: tuple[MessageRecord, ...] | None
    output_text: str | None
    explanation_ids: tuple[str, ...]
    """All explanations, newest first."""
    jobs: tuple[JobBrief, ...]
    """All jobs, newest first."""


@documented
@dataclass(frozen=True, slots=True)
class ExchangePage:
    """One page of a list, newest first."""

    items: tuple[ExchangeRow, ...]
    next_cursor: str | None
    """Pass it as `cursor`, with the same filters, for the next page; null on the last one."""
