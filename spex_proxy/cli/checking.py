"""The commands that check an explanation against the model: retest, table; and the report of it all."""

from __future__ import annotations

import asyncio
import getpass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from spex_proxy.cli.shell import AnyId, Store, Upstream, console, fail, run_until_stopped, settings_from
from spex_proxy.facts.errors import NotFound
from spex_proxy.store.connect import reading
from spex_proxy.wiring.store import ready_store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from spex_proxy.settings import Settings

Segments = Annotated[str | None, typer.Option(help="Segments by their numbers, with commas between: 3,5.")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Ask the model from here, or leave it to the worker and go on.")
]


def retest(
    any_id: AnyId,
    top: Annotated[int | None, typer.Option(help="Leave out so many of those that made the answer likelier.")] = None,
    segments: Segments = None,
    who: Annotated[str | None, typer.Option(help="The reviewer.", show_default="your login name")] = None,
    wait: Wait = True,
    upstream: Upstream = None,
    store: Store = None,
) -> None:
    """Ask the model again without the segments that caused an answer: is what was flagged gone?"""
    from spex_proxy.facts.retest import original_text
    from spex_proxy.flows import retest as flow
    from spex_proxy.store import browse, retests
    from spex_proxy.study.again import make_retest_sheet
    from spex_proxy.study.terminal import retest_panel

    if top is not None and segments is not None:
        fail("say either --top or --segments")
    settings = settings_from(upstream=upstream, store=store)
    engine = ready_store(settings)

    def ask(conn: Connection) -> tuple[str, str]:
        explanation = browse.story(conn, any_id, settings.project).explanation
        players = _numbers(segments) if segments else flow.top(explanation, top or 1)
        asked = flow.ask_retest(conn, explanation.id, players, who=who or getpass.getuser(), project=settings.project)
        return asked.retest.id, asked.retest.job_id

    try:
        with engine.begin() as connection:
            retest_id, job_id = ask(connection)
    except ValueError as error:
        fail(str(error))
    if not wait:
        console.print(f"re-test {retest_id[:12]} waits for the worker; later: spex-proxy report {any_id} --html FILE")
        return
    _work_on(settings, job_id)
    with reading(engine) as connection:
        told = browse.story(connection, any_id, settings.project)
        found = retests.story(connection, retest_id, project=settings.project)
    original = original_text(told.exchange) if told.exchange else ""
    console.print(retest_panel(make_retest_sheet(found, told.game, told.exchange, original)))
    if found.state != "done":
        fail(f"the model could not be asked: {found.reason or found.state}; the same command asks again")


def table(
    any_id: AnyId,
    segments: Annotated[str, typer.Argument(help="Segments by their numbers, with commas between: 3,5; at most 4.")],
    ask: Annotated[bool, typer.Option("--ask", help="Ask the model for the lines that nobody has measured.")] = False,
    upstream: Upstream = None,
    store: Store = None,
) -> None:
    """What the answer is worth with none of some segments, with each, with all: the claim that anyone can check."""
    from spex_proxy.flows import fill_table as flow
    from spex_proxy.study.stored import load_table
    from spex_proxy.study.terminal import coalition_table

    settings = settings_from(upstream=upstream, store=store)
    engine, players = ready_store(settings), _numbers(segments)
    try:
        with reading(engine) as connection:
            told, _ = load_table(connection, any_id, players, settings.project)
        if ask:
            with engine.begin() as connection:
                asked = flow.ask_table(connection, told.explanation.id, players, project=settings.project)
            if asked.job_id is not None:
                _work_on(settings, asked.job_id)
        with reading(engine) as connection:
            told, found = load_table(connection, any_id, players, settings.project)
    except ValueError as error:
        fail(str(error))
    console.print(coalition_table(found))
    if found.measured < len(found.lines):
        console.print("[dim]predicted lines: --ask measures them[/dim]")


def report(
    any_id: Annotated[str, typer.Argument(metavar="ID", help="Of an exchange, an explanation or a case; any id.")],
    html: Annotated[Path, typer.Option(help="The file to write; it needs no other.")],
    store: Store = None,
) -> None:
    """The whole case as one HTML file to mail: question, answer, cause, how far to trust it, re-test, verdicts."""
    from spex_proxy.study.html import report_page
    from spex_proxy.study.report import load_report

    settings = settings_from(store=store)
    engine = ready_store(settings)
    with reading(engine) as connection:
        found = load_report(connection, _exchange_of(connection, any_id, settings.project), settings.project)
    try:
        html.write_text(report_page(found), encoding="utf-8")
    except OSError as error:
        fail(f"{html} can't be written: {error.strerror}")
    console.print(f"[dim]{escape(str(html))} holds prompt and answers too: share it as you would share those[/dim]")


def _exchange_of(conn: Connection, any_id: str, project: str) -> str:
    """What a case is about; any other id as it is."""
    from spex_proxy.store import cases

    try:
        return cases.load_case(conn, cases.find_case(conn, any_id, project=project), project=project).exchange_id
    except NotFound:
        return any_id


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) - 1 for part in text.split(","))
    except ValueError:
        fail(f"{text!r} names no segments: write their numbers with commas between, 3,5")


def _work_on(settings: Settings, job_id: str) -> None:
    """Wait until the worker is done with a job; where there is no worker, work on it from here."""
    from spex_proxy.flows.one_job import see_through
    from spex_proxy.wiring.worker import worker_parts

    async def run(stop: asyncio.Event) -> None:
        async with worker_parts(settings, in_foreground=True) as parts:
            ttl = timedelta(seconds=settings.worker_ttl_s)
            working = asyncio.create_task(see_through(job_id, parts, settings.project, ttl))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            working.cancel()
            await working

    with console.status("asking the model"):
        run_until_stopped(run)
