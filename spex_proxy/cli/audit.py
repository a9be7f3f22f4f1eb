"""Review from the terminal: queues of cases, who holds one, and what was said about it."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from spex_proxy.cli.shell import AnyId, Store, console, fail, settings_from
from spex_proxy.cli.shown import block, line
from spex_proxy.facts.review import Case, CaseState, Refusal, Wish
from spex_proxy.settings import Settings
from spex_proxy.store import cases
from spex_proxy.store.cases import USUAL_QUEUE, CaseFilters
from spex_proxy.store.connect import reading
from spex_proxy.store.lookup import find
from spex_proxy.wiring.shared import labels
from spex_proxy.wiring.store import ready_store

audit = typer.Typer(no_args_is_help=True, help="Review: put an answer into a queue, claim a case, judge it.")

T = TypeVar("T")
Who = Annotated[str | None, typer.Option(help="The reviewer.", show_default="your login name")]
Queue = Annotated[str, typer.Option(help="Name of the queue.")]
Note = Annotated[str | None, typer.Option(help="For whoever reads the history.")]
CaseId = Annotated[str, typer.Argument(metavar="CASE", help="A case's id, or how it begins.")]


@audit.command()
def queues(store: Store = None) -> None:
    """How many cases wait, are being read, and are done."""
    settings = settings_from(store=store)
    found = _read(settings, cases.queues, settings.project)
    table = Table("queue", "open", "claimed", "done", "oldest open", box=None)
    for one in found:
        oldest = f"{one.oldest_open:%Y-%m-%d %H:%M}" if one.oldest_open else ""
        table.add_row(line(one.queue), str(one.open), str(one.claimed), str(one.done), oldest)
    console.print(table if found else "no case yet: `spex-proxy audit open ID` puts an answer into a queue")


@audit.command("cases")
def list_(
    queue: Annotated[str | None, typer.Option(help="Only of this queue.")] = None,
    state: Annotated[str | None, typer.Option(help="Only open, claimed or done.")] = None,
    limit: Annotated[int, typer.Option(help="How many, the most urgent first.")] = 20,
    store: Store = None,
) -> None:
    """What there is to judge, the most urgent first."""
    settings = settings_from(store=store)
    states: dict[str | None, tuple[CaseState, ...]] = {
        None: (), "open": ("open",), "claimed": ("claimed",), "done": ("done",)
    }  # fmt: skip
    if state not in states:
        fail(f"no case is {state!r}: open, claimed or done")
    found = _read(settings, cases.list_cases, settings.project, CaseFilters(queue, states[state]), limit=limit).cases
    table = Table("case", "queue", "why", "state", "exchange", "opened", box=None)
    for case in found:
        state_said = f"{case.state} {case.holder or case.label or ''}".strip()
        opened = f"{case.created_at:%Y-%m-%d %H:%M}"
        cells = (case.id[:12], case.queue, case.why, state_said, case.exchange_id[:13], opened)
        table.add_row(*map(line, cells))
    console.print(table if found else "nothing")


@audit.command("open")
def open_(any_id: AnyId, who: Who = None, queue: Queue = USUAL_QUEUE, note: Note = None, store: Store = None) -> None:
    """Put an answer into a queue. Any id will do, `chatcmpl-...` too."""
    settings = settings_from(store=store)
    exchange_id = _read(settings, find, any_id, settings.project).exchange_id
    if exchange_id is None:
        fail(f"{any_id} is an explanation that belongs to no exchange")
    case = _write(
        settings, cases.open_case, exchange_id, why="person", who=_me(who), queue=queue, note=note,
        project=settings.project,
    )  # fmt: skip
    _tell(case)


@audit.command("next")
def next_(who: Who = None, queue: Queue = USUAL_QUEUE, store: Store = None) -> None:
    """Claim the most urgent case that nobody holds."""
    settings = settings_from(store=store)
    hold = timedelta(seconds=settings.review_hold_s)
    case = _write(settings, cases.claim_next, _me(who), queue=queue, hold=hold, project=settings.project)
    if case is None:
        fail(f"queue {queue!r} has no case that nobody holds")
    _tell(case)
    console.print(f"[dim]read it: spex-proxy show {case.exchange_id}[/dim]")


@audit.command()
def claim(case_id: CaseId, who: Who = None, store: Store = None) -> None:
    """Make a case yours for a while; again, to hold it longer."""
    _act(case_id, "claim", who, store)


@audit.command()
def release(case_id: CaseId, who: Who = None, store: Store = None) -> None:
    """Give a case back to its queue."""
    _act(case_id, "release", who, store)


@audit.command()
def judge(
    case_id: CaseId,
    label: Annotated[str, typer.Argument(help="The verdict: one of SPEX_REVIEW_LABELS.")],
    who: Who = None,
    note: Note = None,
    store: Store = None,
) -> None:
    """Judge a case that you have claimed, and close it."""
    _act(case_id, "judge", who, store, label=label, note=note)


@audit.command()
def note(
    case_id: CaseId, text: Annotated[str, typer.Argument(help="What there is to say.")], who: Who = None,
    store: Store = None,
) -> None:  # fmt: skip
    """Add a line to a case's history."""
    _act(case_id, "note", who, store, note=text)


@audit.command()
def reopen(case_id: CaseId, who: Who = None, note: Note = None, store: Store = None) -> None:
    """Put a closed case back into its queue. Its verdict stays in the history."""
    _act(case_id, "reopen", who, store, note=note)


@audit.command()
def history(case_id: CaseId, store: Store = None) -> None:
    """All that happened to a case."""
    settings = settings_from(store=store)
    case = _read(settings, cases.load_case, _whole(settings, case_id), project=settings.project)
    _tell(case)
    # columns, so that no name and no note reaches the left edge, where a line of the history begins
    table = Table.grid(padding=(0, 2))
    for wraps in (False, True, False, True):
        table.add_column(no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
    for event in _read(settings, cases.history, case.id, project=settings.project):
        said = " ".join(part for part in (event.label, event.note) if part)
        table.add_row(f"{event.at:%Y-%m-%d %H:%M:%S}", line(event.who), event.act, block(said))
    console.print(table)


def _act(
    case_id: str, wish: Wish, who: str | None, store: str | None, *, label: str | None = None, note: str | None = None
) -> None:
    settings = settings_from(store=store)
    if label is not None and label not in labels(settings):
        fail(f"no label is {label!r}; there is {', '.join(labels(settings))} (SPEX_REVIEW_LABELS)")
    found = _write(
        settings, cases.act, _whole(settings, case_id), wish, _me(who), label=label, note=note,
        hold=timedelta(seconds=settings.review_hold_s), project=settings.project,
    )  # fmt: skip
    if isinstance(found, Refusal):
        fail(found.reason)
    _tell(found)


def _tell(case: Case) -> None:
    told = Text(f"case {case.id[:12]} in ").append_text(line(case.queue))
    told.append(" (").append_text(line(case.why)).append(f") is {case.state}")
    if case.holder:
        told.append(" by ").append_text(line(case.holder))
        told.append(f" until {case.held_until:%H:%M} UTC" if case.held_until else "")
    if case.label:
        told.append(": ").append_text(line(case.label, "bold"))
    console.print(told, highlight=False, soft_wrap=True)


def _me(who: str | None) -> str:
    return who or getpass.getuser()


def _whole(settings: Settings, beginning: str) -> str:
    return str(_read(settings, cases.find_case, beginning, project=settings.project))


def _read(settings: Settings, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    engine = ready_store(settings)
    try:
        with reading(engine) as connection:
            return function(connection, *arguments, **options)
    finally:
        engine.dispose()


def _write(settings: Settings, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    engine = ready_store(settings)
    try:
        with engine.begin() as connection:
            return function(connection, *arguments, **options)
    finally:
        engine.dispose()
