"""The command line. Each command: read settings, hand over to wiring, show what came out."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from spex_proxy import __version__, wiring
from spex_proxy.facts.errors import SettingsError, SpexError
from spex_proxy.facts.explanation import Explanation
from spex_proxy.facts.finding import Finding
from spex_proxy.flows import explain as explain_flow
from spex_proxy.flows.verify import verify as verify_flow
from spex_proxy.flows.work import Report
from spex_proxy.plug.load import Plugins
from spex_proxy.settings import Settings
from spex_proxy.store import browse
from spex_proxy.store.connect import StoreError, reading
from spex_proxy.store.lookup import find
from spex_proxy.study import findings as report
from spex_proxy.study.html import standalone
from spex_proxy.study.stored import load_sheet
from spex_proxy.study.terminal import checks_table, explanation_panel, listing
from spex_proxy.study.view import make_view

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # local variables hold people's texts and the operator's keys
    rich_markup_mode="markdown",
    help=(
        "Why did the model say that? An OpenAI-compatible proxy in front of vLLM that explains a "
        "sample of production answers, in the background, on the same GPUs.\n\n"
        "Start with `spex-proxy up --upstream http://your-vllm:8000`, then change one base URL in your app."
    ),
)
db = typer.Typer(no_args_is_help=True, help="The store's schema.")
app.add_typer(db, name="db")

console = Console()
errors = Console(stderr=True)

Upstream = Annotated[str | None, typer.Option(help="Base URL of the vLLM server, without /v1. [env: SPEX_UPSTREAM]")]
Store = Annotated[str | None, typer.Option(help="SQLAlchemy URL of the store. [env: SPEX_STORE]")]
AnyId = Annotated[
    str, typer.Argument(metavar="ID", help="Ours, vLLM's (chatcmpl-...), a trace id, or the first 8 characters of one.")
]


@app.command()
def up(
    upstream: Upstream = None,
    store: Store = None,
    port: Annotated[int | None, typer.Option(help="Relay port. [env: SPEX_PORT]")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Port of health and metrics. [env: SPEX_ADMIN_PORT]")] = None,
    explain_rate: Annotated[float | None, typer.Option(help="Share of requests to explain, 0 to 1.")] = None,
) -> None:
    """Everything on one machine: migrate the store, start the relay and one worker. Ctrl-C stops both."""
    settings = _settings(upstream=upstream, store=store, port=port, admin_port=admin_port, explain_rate=explain_rate)
    try:
        wiring.migrate(settings)
    except (SpexError, StoreError) as error:
        errors.print(f"[bold red]nothing can be stored or explained:[/bold red] {escape(str(error))}", highlight=False)
        errors.print("Production is served all the same. Mend the store and start again.")
    console.print(
        f"[bold]spex-proxy[/bold] {__version__}  "
        f"apps: [bold]http://{settings.host}:{settings.port}/v1[/bold]  ->  {escape(settings.upstream)}\n"
        f"[dim]explaining {settings.explain_rate:.0%} of what passes; store {escape(settings.store)}; "
        f"metrics http://{settings.admin_host}:{settings.admin_port}/metrics[/dim]"
    )
    raise typer.Exit(_run(lambda stop: wiring.run_up(settings, stop)))


@app.command()
def serve(upstream: Upstream = None, store: Store = None) -> None:
    """The relay alone. Production is served even if the store is not there."""
    settings = _settings(upstream=upstream, store=store)
    _run(lambda stop: wiring.run_relay(settings, stop))


@app.command()
def work(
    upstream: Upstream = None,
    store: Store = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Jobs at once; the same for all workers. [env: SPEX_WORKER_CONCURRENCY]")
    ] = None,
) -> None:
    """One worker: takes jobs from the store and explains them. On PostgreSQL, start as many as you like."""
    settings = _settings(upstream=upstream, store=store, worker_concurrency=concurrency)
    _run(lambda stop: wiring.run_worker(settings, stop, _log_report))


@app.command()
def explain(
    any_id: AnyId,
    upstream: Upstream = None,
    store: Store = None,
    segmenter: Annotated[
        str | None, typer.Option(help="auto, message, document, sentence, word or a plugin's.")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Most masks to ask.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed asks other masks.")] = None,
) -> None:
    """Explain one stored exchange now, and show the result."""
    settings = _settings(upstream=upstream, store=store, segmenter=segmenter, budget=budget, seed=seed)

    async def run(stop: asyncio.Event) -> Explanation:
        async with wiring.worker_parts(settings) as parts:
            with reading(parts.store) as connection:
                found = find(connection, any_id, settings.project)
            with _progress_bar() as bar:
                task = bar.add_task("preparing", total=settings.budget)

                def show(progress: explain_flow.Progress) -> None:
                    bar.update(task, completed=progress.masks, description=progress.note)

                explaining = asyncio.create_task(
                    explain_flow.explain(
                        str(found.exchange_id),
                        wiring.make_recipe(settings),
                        parts,
                        project=settings.project,
                        on_progress=show,
                    )
                )
                stopping = asyncio.create_task(stop.wait())
                await asyncio.wait({explaining, stopping}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                if not explaining.done():
                    explaining.cancel()
                return await explaining

    explanation = _run(run)
    show(explanation.id, store=store)


@app.command()
def show(
    any_id: AnyId,
    store: Store = None,
    html: Annotated[Path | None, typer.Option(help="Write it as one HTML file instead, which needs no other.")] = None,
) -> None:
    """Show why an answer came out: the prompt highlighted, what moved it, what acted together."""
    settings = _settings(store=store)
    engine = wiring.ready_store(settings)
    if html is not None:
        with reading(engine) as connection:
            sheet, _ = load_sheet(connection, any_id, settings.project)
        try:
            html.write_text(standalone(sheet), encoding="utf-8")
        except OSError as error:
            _fail(f"{html} can't be written: {error.strerror}")
        console.print(f"[dim]{escape(str(html))} holds prompt and answer too: share it as you would share those[/dim]")
        return
    with reading(engine) as connection:
        story = browse.story(connection, any_id, settings.project)
    console.print(explanation_panel(make_view(story.explanation, story.game, story.exchange)))
    console.print(f"[dim]check it against its evidence: spex-proxy verify {story.explanation.id[:12]}[/dim]")


@app.command(name="list")
def list_(store: Store = None, limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20) -> None:
    """The newest exchanges and what became of them."""
    settings = _settings(store=store)
    engine = wiring.ready_store(settings)
    with reading(engine) as connection:
        rows = browse.newest(connection, settings.project, limit)
    console.print(listing(rows))


@app.command()
def verify(any_id: AnyId, store: Store = None) -> None:
    """Check an explanation against its stored evidence: no GPU, no network. Exit code 1 if it fails."""
    settings = _settings(store=store)
    engine = wiring.ready_store(settings)
    with reading(engine) as connection:
        story = browse.story(connection, any_id, settings.project)
        checks = verify_flow(connection, story.explanation.id, settings.project, Plugins())
    console.print(checks_table(checks))
    if not all(check.is_passed for check in checks):
        _fail("this explanation does NOT follow from the evidence that is stored with it")
    console.print(f"[green]{story.explanation.id[:12]} follows from its evidence[/green]")


@app.command()
def doctor(
    upstream: Upstream = None,
    store: Store = None,
    model: Annotated[str | None, typer.Option(help="The model to try; without it, the first that is served.")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Is everything there, and if not, what to do? Changes nothing. Exit code 1 if something is broken."""
    settings = _settings(upstream=upstream, store=store)

    async def examine(_: asyncio.Event) -> list[Finding]:
        found = []
        async with wiring.doctor_parts(settings, model) as parts:
            async for finding in parts.examine():
                found.append(finding)
                if not is_json:
                    console.print(report.finding_line(finding))
        return found

    found = _run(examine)
    if is_json:
        typer.echo(json.dumps(report.as_json(found, __version__), indent=2, ensure_ascii=False))
    else:
        console.print(report.summary(found))
    raise typer.Exit(int(report.is_broken(found)))


@db.command()
def upgrade(store: Store = None) -> None:
    """Bring the store to the schema of this version."""
    console.print(f"the store is at revision {wiring.migrate(_settings(store=store))}")


def main() -> None:
    """The console script. Errors of ours are for people: one line, no traceback."""
    try:
        app()
    except SpexError as error:
        _fail(str(error))
    except StoreError as error:
        # not the error itself: it quotes the statement with its parameters
        _fail(f"the store failed: {getattr(error, 'orig', None) or type(error).__name__}")


def _settings(**options: Any) -> Settings:
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        lines = [_trouble(str(e["loc"][0]) if e["loc"] else "settings", e["msg"]) for e in error.errors()]
        raise SettingsError("these settings can't work:\n  " + "\n  ".join(lines)) from None
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return settings


def _trouble(name: str, message: str) -> str:
    return f"{name} (SPEX_{name.upper()}): {message.removeprefix('Value error, ')}"


def _run(main_coroutine: Callable[[asyncio.Event], Coroutine[Any, Any, Any]]) -> Any:
    """Run until done, or until SIGINT or SIGTERM sets the event."""

    async def run() -> Any:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        return await main_coroutine(stop)

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        _fail("stopped; what was measured so far is stored and will not be asked again")
    except ExceptionGroup as group:  # two servers run together: the first error of ours tells what is wrong
        ours, others = group.split(SpexError)
        if ours is None or others is not None:
            raise
        raise ours.exceptions[0] from None


def _log_report(report: Report) -> None:
    log = logging.getLogger("spex_proxy.worker")
    if report.explanation is not None:
        e = report.explanation
        log.info("explained %s: %s, R2 %.3f, %d masks", e.exchange_id, e.verdict, e.fidelity.r2, e.cost.masks)
    elif report.error is not None:
        log.warning("job %s for %s: %s", report.job.id, report.job.exchange_id, report.error)


def _progress_bar() -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("masks"),
        TimeElapsedColumn(), console=console,
    )  # fmt: skip


def _fail(message: str) -> NoReturn:
    errors.print(f"[bold red]spex-proxy:[/bold red] {escape(message)}", highlight=False)
    sys.exit(1)
