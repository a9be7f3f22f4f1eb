"""The commands that keep running: up, serve, work."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from spex_proxy import __version__
from spex_proxy.cli.shell import Store, Upstream, console, errors, run_until_stopped, settings_from
from spex_proxy.cli.shown import paragraph, without_password
from spex_proxy.facts.errors import SpexError
from spex_proxy.store.connect import StoreError, address_of

if TYPE_CHECKING:
    from spex_proxy.flows.work import Report
    from spex_proxy.settings import Settings

ADMIN_PORT = "Second port: pages, JSON API, health and metrics. [env: SPEX_ADMIN_PORT]"
Workers = Annotated[int | None, typer.Option(help="Relay processes on the relay port. [env: SPEX_WORKERS]")]


def up(
    upstream: Upstream = None,
    store: Store = None,
    port: Annotated[int | None, typer.Option(help="Relay port. [env: SPEX_PORT]")] = None,
    admin_port: Annotated[int | None, typer.Option(help=ADMIN_PORT)] = None,
    explain_rate: Annotated[float | None, typer.Option(help="Share of requests to explain, 0 to 1.")] = None,
    workers: Workers = None,
) -> None:
    """Everything on one machine: migrate the store, start the relay and one worker. Ctrl-C stops both."""
    from spex_proxy.wiring.schema import migrate
    from spex_proxy.wiring.together import run_up

    settings = settings_from(
        upstream=upstream, store=store, port=port, admin_port=admin_port, explain_rate=explain_rate, workers=workers
    )
    try:
        migrate(settings)
    except (SpexError, StoreError) as error:
        errors.print(
            f"[bold red]nothing can be stored or explained:[/bold red] {paragraph(str(error))}", highlight=False
        )
        errors.print("Production is served all the same. Mend the store and start again.")
    console.print(
        f"[bold]spex-proxy[/bold] {__version__}  "
        f"apps: [bold]{_apps_ask(settings)}[/bold]  ->  {escape(without_password(settings.upstream))}\n"
        f"[dim]explaining {settings.explain_rate:.0%} of what passes; store {escape(address_of(settings.store))}; "
        f"pages http://{settings.admin_host}:{settings.admin_port}/spex/[/dim]"
    )
    raise typer.Exit(run_until_stopped(lambda stop: run_up(settings, stop)))


def serve(
    upstream: Upstream = None,
    store: Store = None,
    workers: Workers = None,
    link: Annotated[int | None, typer.Option(hidden=True, help="File descriptor of the parent of this one.")] = None,
) -> None:
    """The relay alone. Production is served even if the store is not there."""
    settings = settings_from(upstream=upstream, store=store, workers=workers)
    if link is not None:
        from spex_proxy.wiring.relaying import new_event_loop, run_linked_relay

        run_until_stopped(lambda stop: run_linked_relay(settings, stop, link), new_event_loop)
    elif settings.workers > 1:
        from spex_proxy.wiring.relays import run_relays

        run_until_stopped(lambda stop: run_relays(settings, stop))
    else:
        from spex_proxy.wiring.relay import new_event_loop, run_relay

        run_until_stopped(lambda stop: run_relay(settings, stop), new_event_loop)


def _apps_ask(settings: Settings) -> str:
    return settings.host if settings.host.startswith("unix:") else f"http://{settings.host}:{settings.port}/v1"


def work(
    upstream: Upstream = None,
    store: Store = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Jobs at once; the same for all workers. [env: SPEX_WORKER_CONCURRENCY]")
    ] = None,
) -> None:
    """One worker: takes jobs from the store and explains them. On PostgreSQL, start as many as you like."""
    from spex_proxy.wiring.worker import run_worker

    settings = settings_from(upstream=upstream, store=store, worker_concurrency=concurrency)
    run_until_stopped(lambda stop: run_worker(settings, stop, _log_report))


def _log_report(report: Report) -> None:
    log = logging.getLogger("spex_proxy.worker")
    if report.explanation is not None:
        e = report.explanation
        log.info("explained %s: %s, R2 %.3f, %d masks", e.exchange_id, e.verdict, e.fidelity.r2, e.cost.masks)
    elif report.error is None and report.progress is None:
        log.info("%s for %s is done", report.job.kind, report.job.exchange_id)
    elif report.error is not None:
        log.warning("job %s for %s: %s", report.job.id, report.job.exchange_id, report.error)
