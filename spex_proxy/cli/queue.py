"""The queue as a whole: how it stands, pause and resume."""

from __future__ import annotations

from datetime import timedelta

import typer

from spex_proxy.cli.shell import Store, console, settings_from
from spex_proxy.store import outbox, steering, workers
from spex_proxy.store.connect import reading
from spex_proxy.wiring.store import ready_store

queue = typer.Typer(no_args_is_help=True, help="The jobs that wait: how many, pause, resume.")


@queue.command()
def show(store: Store = None) -> None:
    """How many jobs are in which state, and who works on them."""
    settings = settings_from(store=store)
    engine = ready_store(settings)
    with reading(engine) as connection:
        counts = outbox.counts(connection, settings.project)
        live = workers.live(connection, timedelta(seconds=settings.worker_ttl_s))
        is_paused = outbox.is_paused(connection, settings.project)
    console.print("  ".join(f"{state} {count}" for state, count in counts.items()))
    console.print(f"{len(live)} worker(s) alive" + "".join(f"\n  {w.id}, {w.concurrency} at once" for w in live))
    if is_paused:
        console.print("[bold]paused[/bold]; go on with: spex-proxy queue resume")
    engine.dispose()


@queue.command()
def pause(store: Store = None) -> None:
    """Start no more explanations of this project; those that run stop after the batch that is being answered."""
    settings = settings_from(store=store)
    engine = ready_store(settings)
    with engine.begin() as connection:
        changed = steering.pause_queue(connection, project=settings.project)
    console.print("paused" if changed else "it was paused already")
    engine.dispose()


@queue.command()
def resume(store: Store = None) -> None:
    """Go on where it was left."""
    settings = settings_from(store=store)
    engine = ready_store(settings)
    with engine.begin() as connection:
        changed = steering.resume_queue(connection, project=settings.project)
    console.print("resumed" if changed else "it was not paused")
    engine.dispose()
